"""On what a measurement was made."""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

KUAT = Path("target/release/kuat")


def provenance():
    """The machine and the software."""
    return {
        "cpu": cpu(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": system(),
        "adapters": json.loads(said(KUAT, "devices", "--json"))["adapters"],
        "versions": {
            "kuat": said(KUAT, "--version").split()[-1],
            "rust": said("rustc", "--version").split()[1],
            "python": platform.python_version(),
        },
    }


def moment():
    """Of what state of the code, and when."""
    commit = said("git", "rev-parse", "--short=12", "HEAD")
    changed = said("git", "status", "--porcelain", "--untracked-files=no", "--", "src", "shaders", "python", "benches")
    return {
        "commit": commit + (" and changes" if changed else ""),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def dataset(images, found, classes):
    """The photographs, `found` as (path, label)."""
    from PIL import Image

    sides, kinds = [], set()
    for path, _ in found:
        with Image.open(path) as image:
            sides.append(image.size)
            kinds.add(image.format)
    return {
        "name": Path(images).resolve().name,
        "images": len(found),
        "classes": len(classes),
        "format": ", ".join(sorted(kinds)),
        "median_width": statistics.median_low(width for width, _ in sides),
        "median_height": statistics.median_low(height for _, height in sides),
        "bytes_per_file": round(statistics.mean(path.stat().st_size for path, _ in found)),
    }


def machine(provenance):
    """A name for files: the CPU and its cores."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|@.*|\d+-core|processor", " ", provenance["cpu"].lower())
    return "-".join(re.findall(r"[a-z0-9]+", name)) + f"-{provenance['cores']}-cores"


def cpu():
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1].strip() if found else platform.machine()
    if platform.system() == "Darwin":
        return said("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor()


def cores():
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def system():
    release = Path("/etc/os-release")
    if release.exists():
        found = re.search(r'^PRETTY_NAME="(.*)"$', release.read_text(), re.MULTILINE)
        return f"{found[1] if found else 'Linux'}, kernel {platform.release()}"
    return platform.platform()


def said(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
