"""What tests of reading archives share: archives to read, what they hold, and programs that read them."""

import gc
import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from oracle import assembled

import kuat
from kuat._kuat import live_memory

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork of Unix")

# (width, height), (patch width, patch height), channels, codewords: bits of an index.
GEOMETRIES = {
    "rgb": ((40, 24), (4, 4), 3, 300, 9),
    "grey": ((13, 8), (2, 2), 1, 5, 3),
    "overhanging": ((17, 11), (3, 5), 4, 2000, 11),
    "bytes": ((24, 16), (4, 4), 3, 256, 8),
    "shorts": ((30, 22), (2, 2), 3, 40_000, 16),
    "wide": ((30, 22), (2, 2), 3, 70_000, 17),
}
SAMPLES = 9
DTYPES = {"uint8": np.uint8, "float16": np.float16, "float32": np.float32}
# As the library's own tests have it: of values up to 1, else of the value.
TOLERANCE = {"float16": 1 / 1024, "float32": 4 * np.finfo(np.float32).eps}
MEANS, STDS = (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.25)
DEVICES = [] if os.environ.get("KUAT_TEST_WITHOUT_GPU") else kuat.devices()


def make(path, geometry, samples=SAMPLES, **options):
    """An archive of random codewords at random places."""
    (width, height), (q, p), channels, codewords, _ = geometry
    random = np.random.default_rng(codewords)
    codebook = random.integers(0, 256, (codewords, p, q, channels), dtype=np.uint8)
    places = random.integers(0, codewords, (samples, -(-height // p), -(-width // q)))
    images = assembled(codebook, places, height, width)
    items = [(image, i % 4 - 1, f"caption {i} \N{SNOWMAN}") for i, image in enumerate(images)]
    options = {"codebook": codebook, "classes": ["a", "b", "c"], **options}
    kuat.encode(items, path, size=(width, height), patch=(q, p), channels=channels, progress=False, **options)
    return path


def expected(images, dtype="uint8", layout="NHWC", mean=None, std=None):
    """Images as `decode_batch` returns them, in double precision."""
    values = images
    if dtype != "uint8":
        values = values / 255
        if mean is not None:
            values = (values - np.asarray(mean)) / np.asarray(std)
    return values.transpose(0, 3, 1, 2) if layout == "NCHW" else values


def assert_same(found, wanted, dtype="uint8"):
    assert found.shape == wanted.shape and found.dtype == dtype
    if dtype == "uint8":
        np.testing.assert_array_equal(found, wanted)
    else:
        error = np.abs(found.astype(np.float64) - wanted) / np.maximum(np.abs(wanted), 1)
        assert error.max(initial=0) <= TOLERANCE[np.dtype(dtype).name]


def outputs(channels):
    """Every way to ask for a batch."""
    yield from ({"dtype": "uint8", "layout": layout} for layout in ("NHWC", "NCHW"))
    constants = ({}, {"mean": MEANS[:channels], "std": STDS[:channels]}, {"mean": 0.5, "std": 0.25})
    for dtype, layout, normalization in itertools.product(("float16", "float32"), ("NHWC", "NCHW"), constants):
        yield {"dtype": dtype, "layout": layout, **normalization}


def run(code, *arguments, timeout=60, **options):
    """What a program prints. One that hangs is killed."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def address(array):
    return array.__array_interface__["data"][0]


def live():
    gc.collect()
    return live_memory()
