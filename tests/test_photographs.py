"""Photographs encoded by the command, decoded by it on every device, and by numpy alone.

KUAT_TEST_IMAGES names a folder whose subfolders `kodak` and `imagewoof` hold those data sets; without it, pictures
made here stand in for photographs.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import test_layers
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
KUAT = ROOT / "target/release/kuat"
REAL = os.environ.get("KUAT_TEST_IMAGES")
# Data set -> patch -> least mean PSNR in dB with 65,536 codewords at 224x224.
DATA_SETS = {"kodak": {4: 30.0, 2: 36.0}, "imagewoof": {4: 28.6, 2: 34.8}} if REAL else {"made": {4: 30.0, 2: 36.0}}


def kuat(*arguments):
    answer = subprocess.run([KUAT, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder for each data set."""
    if REAL:
        return {name: Path(REAL) / name for name in DATA_SETS}
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    for i in range(24):
        # Smooth at every scale and mostly grey, as photographs are: noise whose amplitude falls with its frequency,
        # much the same in all channels.
        noise = random.normal(size=(300, 400, 1)) + 0.15 * random.normal(size=(300, 400, 3))
        y, x = np.meshgrid(np.fft.fftfreq(300), np.fft.fftfreq(400), indexing="ij")
        spectrum = np.fft.fft2(noise, axes=(0, 1)) / (np.hypot(x, y)[..., None] + 0.003) ** 1.3
        field = np.fft.ifft2(spectrum, axes=(0, 1)).real
        field = (field - field.mean()) / field.std()
        Image.fromarray(np.clip(field * 50 + 128, 0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
    return {"made": folder}


@pytest.fixture(scope="module", params=[(name, patch) for name in DATA_SETS for patch in DATA_SETS[name]], ids=str)
def encoded(request, pictures, tmp_path_factory):
    name, patch = request.param
    archive = tmp_path_factory.mktemp("archive") / f"{name}-{patch}.qvq"
    summary = kuat("encode", pictures[name], "-o", archive, "--size", "224x224", "--patch", patch)
    return name, patch, archive, summary


def with_numpy(path):
    """The five lines of FORMAT.md, for indices that are not packed; nothing of kuat's."""
    t = load_file(path)
    i, cb = t["indices"], t["codebook"]
    n, gh, gw = i.shape
    images = cb[i].transpose(0, 1, 3, 2, 4, 5).reshape(n, gh * cb.shape[1], gw * cb.shape[2], cb.shape[3])
    return images


def test_quality_and_description(encoded):
    name, patch, archive, summary = encoded
    assert summary["mean_psnr_db"] >= DATA_SETS[name][patch], summary
    with safe_open(archive, "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "qvq" and int(metadata["samples"]) == summary["samples"]
    assert kuat("verify", archive)["ok"]


def every_device_decodes(archive, expected, out):
    adapters = [f"{adapter['name']} ({adapter['api']})" for adapter in kuat("devices")["adapters"]]
    assert adapters or os.environ.get("KUAT_TEST_WITHOUT_GPU"), "no GPU adapter"
    for device in [["--backend", "cpu"], *(["--adapter", adapter] for adapter in adapters)]:
        kuat("decode", archive, "--out", out, *device)
        assert np.array_equal(np.load(out), expected), device
        out.unlink()


def test_every_device_decodes_the_bytes_that_numpy_does(encoded, tmp_path):
    *_, archive, summary = encoded
    expected = with_numpy(archive)
    assert expected.shape == (summary["samples"], 224, 224, 3)
    every_device_decodes(archive, expected, tmp_path / "out.npy")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", ["224x224", "221x149"])
def test_every_device_decodes_the_layers_that_numpy_does(pictures, tmp_path, size, channels):
    archive, folder = tmp_path / "layers.qvq", next(iter(pictures.values()))
    options = ["--codebook-from", "builtin", "--size", size, "--channels", channels, "--bytes-per-image", 8000]
    summary = kuat("encode", folder, "-o", archive, *options)
    assert summary["bytes_per_image"] == pytest.approx(8000, rel=0.02)
    assert kuat("verify", archive, "--against", folder)["ok"]
    every_device_decodes(archive, test_layers.read(archive), tmp_path / "out.npy")


def test_recorded_psnr_is_what_pillow_and_numpy_measure(encoded, pictures):
    """Where the originals are of the archive's size already, no resizing stands between."""
    name, patch, archive, _ = encoded
    first = sorted(pictures[name].rglob("*.*"))[0]
    side = 160
    corner = archive.parent / "corner"
    corner.mkdir(exist_ok=True)
    image = Image.open(first).convert("RGB").crop((20, 20, 20 + side, 20 + side))
    image.save(corner / "0.png")
    small = archive.parent / "corner.qvq"
    summary = kuat("encode", corner, "-o", small, "--size", side, "--patch", patch, "--codebook", 256)
    error = with_numpy(small)[0].astype(float) - np.asarray(image)
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    assert summary["mean_psnr_db"] == pytest.approx(psnr, abs=1e-6)


@pytest.mark.parametrize("bound", [0, 8])
@pytest.mark.parametrize("patch", [2, 4])
def test_a_bound_holds_in_every_value(pictures, tmp_path, bound, patch):
    """Pictures of 32x32 pixels, which are not resized: those of CIFAR-10, or pieces of those made here."""
    folder = Path(REAL) / "cifar32" if REAL else tmp_path / "pieces"
    if not REAL:
        folder.mkdir()
        for path in pictures["made"].iterdir():
            Image.open(path).crop((50, 50, 82, 82)).save(folder / path.name)
    archive, out = tmp_path / "bound.qvq", tmp_path / "out.npy"
    summary = kuat("encode", folder, "-o", archive, "--size", 32, "--patch", patch, "--max-error", bound)
    kuat("decode", archive, "--out", out, "--backend", "cpu")
    paths = sorted(folder.rglob("*.png"), key=lambda path: os.fsencode(path.relative_to(folder)))
    originals = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    assert np.abs(np.load(out).astype(int) - originals).max() <= bound
    grid = originals.reshape(len(paths), 32 // patch, patch, 32 // patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    cells = np.unique(grid.reshape(-1, patch * patch * 3) // (2 * bound + 1), axis=0)
    assert summary["uniform_cells"] == len(cells) >= summary["codewords"]


def test_float_arrays_are_what_numpy_computes(encoded, tmp_path):
    *_, archive, _ = encoded
    out = tmp_path / "out.npy"
    bytes_ = with_numpy(archive)[:16]
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    expected = ((bytes_.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    options = ["--samples", "0-15", "--layout", "nchw", "--normalize", "imagenet", "--backend", "cpu", "--out", out]
    for dtype, tolerance in [("f32", 1e-6), ("f16", 2e-3)]:
        kuat("decode", archive, "--dtype", dtype, *options)
        found = np.load(out)
        assert found.dtype == np.dtype(dtype.replace("f", "float"))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_info_on_a_huge_sparse_archive_reads_its_header_alone(tmp_path):
    samples, patches = 16_000_000, 56 * 56
    codebook = 65_536 * 48
    rows = samples * patches * 2
    metadata = dict(
        format="qvq",
        version="1",
        codec="vq",
        image_width=224,
        image_height=224,
        channels=3,
        patch_width=4,
        patch_height=4,
        index_bits=16,
        samples=samples,
    )
    header = json.dumps(
        {
            "__metadata__": {key: str(value) for key, value in metadata.items()},
            "indices": {"dtype": "U16", "shape": [samples, 56, 56], "data_offsets": [0, rows]},
            "codebook": {"dtype": "U8", "shape": [65_536, 4, 4, 3], "data_offsets": [rows, rows + codebook]},
        }
    ).encode()
    path = tmp_path / "huge.qvq"
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows + codebook)
    assert path.stat().st_size > 100e9
    assert kuat("info", path)["samples"] == samples
    kuat("decode", path, "--samples", f"{samples - 1}", "--backend", "cpu", "--out", tmp_path)
    assert not np.asarray(Image.open(tmp_path / f"{samples - 1}.png")).any()
