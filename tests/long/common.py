"""What the long runs share: archives to read, what they hold by numpy alone, and how figures are told."""

import argparse
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python/tests"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import oracle  # noqa: E402
import test_layers  # noqa: E402

KUAT = ROOT / "target/release/kuat"


def arguments(description, **defaults):
    """The command's arguments: `--name` for each default, of its type."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args()


def images(count, width, height, channels=3, seed=0):
    """Pictures of waves with a little noise, all different."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    found = []
    for i in range(count):
        waves = [np.sin((x * (1 + i % 5) + y * (k + 1)) / (3 + i % 7) + i) for k in range(channels)]
        found.append(np.clip(127 + 90 * np.stack(waves, -1) + random.normal(0, 4, (height, width, channels)), 0, 255))
    return np.stack(found).astype(np.uint8)


def items(pictures):
    """Pictures with labels, some without, and captions."""
    return [(picture, i % 4 - 1, f"caption {i} \N{SNOWMAN}") for i, picture in enumerate(pictures)]


def decoded(path):
    """The images of a valid archive of either codec, decoded by numpy."""
    metadata, _ = header(Path(path).read_bytes())
    return test_layers.read(path) if metadata["codec"] == "layers" else oracle.decoded(path)


def header(data):
    """The metadata of an archive's bytes, and its tensors as the header has them."""
    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length])
    return found.pop("__metadata__"), found


def checksums(pictures):
    return np.array([zlib.crc32(np.ascontiguousarray(picture).tobytes()) for picture in pictures], np.uint32)


def _crc32c_table():
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    return [int(entry) for entry in table]


TABLE = _crc32c_table()


def crc32c(data):
    """CRC-32C (RFC 3720, appendix B.4), byte by byte."""
    crc = 0xFFFFFFFF
    for byte in bytes(data):
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def software_adapter():
    """The number of a GPU adapter that is software, or None. Asked in another process: who asks has used GPUs."""
    code = "import json, kuat; print(json.dumps(kuat.devices()))"
    found = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    found = [device for device in found if device["kind"] == "software"]
    found.sort(key=lambda device: (device["api"] == "gl", "llvmpipe" not in device["name"]))
    return (found[0]["index"], found[0]["name"]) if found else (None, None)


def say(*parts):
    print(time.strftime("%H:%M:%S"), *parts, file=sys.stderr, flush=True)


def end(figures, failures):
    """Prints the figures as a line of JSON and ends the process: with status 1 if anything failed."""
    print(json.dumps({**figures, "failures": failures}), flush=True)
    sys.exit(1 if failures else 0)
