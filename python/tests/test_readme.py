"""The examples of the documentation run as they are written."""

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import decoded
from PIL import Image

import kuat

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = importlib.util.find_spec("torch") is None
NEEDS_TORCH = pytest.mark.skipif(WITHOUT_TORCH, reason="torch is not installed")
NAMES = ["imagewoof_train.qvq", "photos.qvq", "dataset.qvq"]
COUNT = 150


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the archives and photographs that the examples use."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0)
    small = pixels.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    images = small.repeat(8, 1).repeat(8, 2)
    items = [(image, i % 10, f"a photograph, number {i}") for i, image in enumerate(images)]
    kuat.encode(items, NAMES[0], size=32, codebook=500, classes=[f"class {i}" for i in range(10)], progress=False)
    for name in NAMES[1:]:
        Path(name).write_bytes(Path(NAMES[0]).read_bytes())
    for i, image in enumerate(images[:12]):
        path = Path("photos", ["cat", "dog", "fox"][i % 3], f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path


def examples(text):
    """The lines of each example in Python, its first line's number, and whether it needs torch."""
    lines = text.splitlines()
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and re.fullmatch(r"```(python|py)", line.strip()):
            start = number
        elif start is not None and line.strip() == "```":
            before = next((above.strip() for above in reversed(lines[: start - 1]) if above.strip()), "")
            yield start, "\n".join(lines[start : number - 1]), before == "<!-- torch -->"
            start = None
    assert start is None


def test_examples_are_found():
    text = "\n```python\na\n\nb\n```\n<!-- torch -->\n\n```python\nc\n```\n```sh\nd\n```\n<!-- x -->\n```python\n```"
    assert list(examples(text)) == [(2, "a\n\nb", False), (9, "c", True), (16, "", False)]


@pytest.mark.parametrize("name", ["README.md", "python/README.md"])
def test_readme(name, folder):
    # One program, its lines where the file has them, in a process of its own: what it loads stays out of this one.
    program = []
    for line, code, needs_torch in examples((ROOT / name).read_text(encoding="utf-8")):
        if not (needs_torch and WITHOUT_TORCH):
            program += [""] * (line - len(program)) + code.splitlines()
    path = folder / "README.py"
    path.write_text("\n".join(program) + "\n", encoding="utf-8")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


# The interface that users of the original know, on the CPU.


def test_decoding_on_the_cpu(folder):
    archive = kuat.KuatArchive("imagewoof_train.qvq")
    images = decoded("imagewoof_train.qvq")
    assert archive.len() == COUNT
    assert (archive.codebook_size, archive.patch_size, archive.dimensions, archive.grid_size) == (
        len(archive.codebook), 4, (3, 32, 32), 64,
    )  # fmt: skip
    image = archive.decode(0)
    assert isinstance(image, np.ndarray) and image.shape == (32, 32, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, images[0])
    np.testing.assert_array_equal(archive.decode_batch([0, 1, 2, 3]), images[:4])
    assert archive.label(0) == 0 and archive.label(13) == 3
    assert isinstance(archive.all_labels(), np.ndarray) and archive.all_labels().tolist() == [
        i % 10 for i in range(COUNT)
    ]
    codebook = archive.codebook_numpy()
    assert codebook.shape == (archive.codebook_size, 4 * 4 * 3) and codebook.dtype == np.float32
    assert 0 <= codebook.min() and codebook.max() <= 1
    indices = archive.get_indices_batch([0, 1])
    assert indices.shape == (2, 64) and indices.dtype == np.uint32


def normalised(images):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((images / 255 - mean) / std).transpose(0, 3, 1, 2)


@NEEDS_TORCH
def test_gpu_decoder(folder):
    import torch

    from kuat import GPUDecoder

    archive = kuat.KuatArchive("imagewoof_train.qvq")
    wanted = decoded("imagewoof_train.qvq")[:4].transpose(0, 3, 1, 2) / 255
    indices = archive.get_indices_batch([0, 1, 2, 3])
    # torch has had a uint32 since 2.3.
    indices = torch.tensor(indices if hasattr(torch, "uint32") else indices.astype(np.int64), device="cpu")
    for decoder in (GPUDecoder(archive, device="cpu"), GPUDecoder("imagewoof_train.qvq", device="cpu")):
        images = decoder.decode(indices)
        assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32 and images.device.type == "cpu"
        np.testing.assert_allclose(np.array(images.tolist()), wanted, atol=1e-6)
    images = GPUDecoder(archive, device="cpu", dtype=torch.float32).decode(indices)
    np.testing.assert_allclose(np.array(images.tolist()), wanted, atol=1e-6)


@NEEDS_TORCH
def test_gpu_dataset(folder):
    import torch

    from kuat import GPUDataset

    archive = kuat.KuatArchive("imagewoof_train.qvq")
    wanted = decoded("imagewoof_train.qvq")
    dataset = GPUDataset(archive, device="cpu", normalize=True)
    assert len(dataset) == COUNT
    images, labels = dataset[0:64]
    assert images.shape == (64, 3, 32, 32) and images.dtype == torch.float32 and images.device.type == "cpu"
    np.testing.assert_allclose(np.array(images.tolist()), normalised(wanted[:64]), atol=1e-5)
    assert labels.tolist() == [i % 10 for i in range(64)] and labels.dtype == torch.int64
    images, labels = dataset[[0, 5, 10]]
    np.testing.assert_allclose(np.array(images.tolist()), normalised(wanted[[0, 5, 10]]), atol=1e-5)
    assert labels.tolist() == [0, 5, 0]
    images, _ = GPUDataset("dataset.qvq", device="cpu", normalize=False, layout="NHWC")[-2:]
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(np.array(images.tolist()), wanted[-2:] / 255, atol=1e-6)


@NEEDS_TORCH
def test_training_loop(folder):
    import torch

    from kuat import GPUDataset

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))

        def forward(self, images, labels):
            return torch.nn.functional.cross_entropy(self.layers(images), labels)

    random.seed(0)
    torch.manual_seed(0)
    dataset = GPUDataset("imagewoof_train.qvq", device="cpu", normalize=True)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    indices = list(range(len(dataset)))
    losses = []
    for _ in range(5):
        random.shuffle(indices)
        for i in range(0, len(indices), 64):
            images, labels = dataset[indices[i : i + 64]]
            loss = model(images, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
