"""Real photographs into an archive and back: what `make demo` shows.

Encodes a folder, decodes it on the CPU and on the best GPU adapter of the machine, checks that the two agree bit for
bit, and prints a table and the path of a contact sheet. Run by the Makefile, which has built the command.
"""

import argparse
import filecmp
import json
import subprocess
import sys
from pathlib import Path

from photographs import SIZE, photographs

KUAT = Path("target/release/kuat")
WORK = Path("target/demo")
# Samples that are decoded for the comparison.
COMPARED = 256


def kuat(*arguments):
    """Runs the command and returns its answer; its progress bars stay on the terminal."""
    answer = subprocess.run([KUAT, *map(str, arguments), "--json"], stdout=subprocess.PIPE)
    if answer.returncode != 0:
        sys.exit(answer.returncode)
    return json.loads(answer.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    images = parser.parse_args().images or photographs()
    WORK.mkdir(parents=True, exist_ok=True)
    archive, sheet = WORK / "demo.qvq", WORK / "sheet.png"

    print(f"encoding {images}", flush=True)
    summary = kuat("encode", images, "-o", archive, "--size", SIZE, "--on-error", "skip")
    for skipped in summary["skipped"]:
        print(f"skipped {skipped['name']}: {skipped['reason']}")

    adapters = kuat("devices")["adapters"]
    if not adapters:
        sys.exit("no GPU adapter was found, although a driver is installed; `vulkaninfo` may tell why")
    best = adapters[0]
    name = f"{best['name']} ({best['api']})"
    print(f"decoding on the CPU and on {name}", flush=True)
    last = min(summary["samples"], COMPARED) - 1
    arrays = {"cpu": WORK / "cpu.npy", name: WORK / "gpu.npy"}
    kuat("decode", archive, "--samples", f"0-{last}", "--out", arrays["cpu"], "--backend", "cpu")
    kuat("decode", archive, "--samples", f"0-{last}", "--out", arrays[name], "--adapter", name)
    if not filecmp.cmp(*arrays.values(), shallow=False):
        sys.exit(f"{name} and the CPU decode differently; please report it")

    rows = kuat("bench", archive, "--adapter", name, "--batch", "64", "--dtype", "u8")["rows"]
    against = [] if summary["skipped"] else ["--against", images]
    kuat("sheet", archive, "-o", sheet, *against)

    pixels = SIZE * SIZE * 3
    print()
    print(f"{summary['samples']} images, {summary['codewords']} codewords, CPU and {name} agree bit for bit")
    print(
        f"bytes per image   {summary['bytes_per_image']} ({pixels / summary['bytes_per_image']:.0f} times less than "
        f"pixels), and {summary['codewords'] * 48 / 1e6:.1f} MB of codebook once"
    )
    print(f"PSNR              {summary['mean_psnr_db']:.1f} dB mean, {summary['min_psnr_db']:.1f} dB worst")
    print(f"encoding          {summary['images_per_second']:.0f} images/s")
    print()
    print(f"{'u8, batch 64':40} {'stage':9} {'images/s':>10} {'limit':>10}  {'images/s':>10} {'ratio':>6}")
    for row in rows:
        limit = row["limit_bytes_per_s"] / row["bytes_per_s"] * row["images_per_s"]
        device = row["adapter"] or "cpu"
        print(
            f"{device:40} {row['stage']:9} {row['images_per_s']:10,.0f} {row['limit']:>10}  {limit:10,.0f} "
            f"{row['ratio']:6.2f}"
        )
    if best["kind"] == "software":
        print("\nThis adapter runs on the processor: it shows that the GPU path is right, not how fast it is on a GPU.")
    print(f"\ncontact sheet     {sheet.resolve()}")


if __name__ == "__main__":
    main()
