"""GPUDecoder and GPUDataset, checked against the codebook and indices with numpy alone."""

import gc
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

try:
    import torch
except ModuleNotFoundError:
    if os.environ.get("KUAT_TEST_WITHOUT_TORCH") != "1":
        raise RuntimeError("these tests need torch; to leave them out set KUAT_TEST_WITHOUT_TORCH=1") from None
    pytest.skip("KUAT_TEST_WITHOUT_TORCH=1", allow_module_level=True)

import torch.nn.functional as F  # noqa: E402, N812
from helpers import GEOMETRIES as KINDS  # noqa: E402
from helpers import make  # noqa: E402
from torch.utils.data import DataLoader, Subset  # noqa: E402

import kuat  # noqa: E402
from kuat import GPUDataset, GPUDecoder, KuatArchive  # noqa: E402
from kuat._torch._backend import Gather, Native, Sent  # noqa: E402
from kuat._torch._device import _accelerators  # noqa: E402

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
ADAPTERS = [adapter["index"] for adapter in kuat.devices()]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DTYPES = [torch.uint8, torch.float16, torch.float32]


def write_archive(path, indices, codebook, bits, size, labels=None):
    """An archive by FORMAT.md of indices (samples, grid height, grid width) in `bits`, images of (height, width)."""
    samples = len(indices)
    if bits in (8, 16, 32):
        stored = indices.astype(f"<u{bits // 8}")
    else:
        ones = indices.reshape(samples, -1, 1) >> np.arange(bits) & 1
        packed = np.packbits(ones.reshape(samples, -1).astype(np.uint8), axis=1, bitorder="little")
        stored = np.pad(packed, [(0, 0), (0, -packed.shape[1] % 4)]).view("<u4")
    tensors = {"indices": (f"U{stored.itemsize * 8}", stored), "codebook": ("U8", codebook)}
    if labels is not None:
        tensors = {"labels": ("I64", np.asarray(labels, "<i8")), **tensors}
    numbers = {
        "version": 1, "image_height": size[0], "image_width": size[1], "channels": codebook.shape[3],
        "patch_height": codebook.shape[1], "patch_width": codebook.shape[2], "index_bits": bits, "samples": samples,
    }  # fmt: skip
    header = {"__metadata__": {"format": "qvq", "codec": "vq", **{name: str(n) for name, n in numbers.items()}}}
    offset = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for _, array in tensors.values())
    )
    return path


def pixels(archive, ids):
    """Images by numpy: (batch, height, width, channels) uint8."""
    _, height, width = archive.dimensions
    (down, across), (tall, wide) = archive.grid_shape, archive.patch_shape
    patches = archive.codebook[np.minimum(archive.get_indices_batch(ids), archive.codebook_size - 1)]
    patches = patches.reshape(len(patches), down, across, tall, wide, -1).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(len(patches), down * tall, across * wide, -1)[:, :height, :width]


def values(images, dtype=np.float32, mean=0.0, std=1.0):
    """What floats stand for bytes, (batch, height, width, channels): the definition."""
    mean, std = np.float64(np.float32(mean)), np.float64(np.float32(std))
    return ((images / 255.0 - mean) / std).astype(np.float32).astype(dtype)


def planes(images):
    """NHWC to NCHW."""
    return images.transpose(0, 3, 1, 2)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """64 images of 32x32 with labels 0 to 3, except that sample 7 has none."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    path = tmp_path_factory.mktemp("torch") / "small.qvq"
    items = [(image, None if i == 7 else i % 4) for i, image in enumerate(images)]
    kuat.encode(items, path, size=32, codebook=300, classes=["a", "b", "c", "d"], progress=False)
    return path


@pytest.fixture
def archive(path):
    return KuatArchive(path)


@pytest.fixture
def dataset(path):
    return GPUDataset(path, device="cpu")


def gather(dataset):
    """The data set as it is on an accelerator, except that the tensors are in host memory."""
    decoder = dataset.decoder
    output = {name: value for name, value in decoder._arguments.items() if name != "device"}
    decoder._backend = Gather(decoder.archive, torch.device("cpu"), output)
    return dataset


# GPUDecoder


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_gives_the_pixels_of_the_archive(archive, dtype, layout):
    ids = [3, 0, 63, 3]
    decoder = GPUDecoder(archive, "cpu", dtype, layout=layout)
    expected = pixels(archive, ids)
    if dtype != torch.uint8:
        expected = values(expected, str(dtype)[6:])
    expected = torch.tensor(expected if layout == "NHWC" else np.ascontiguousarray(planes(expected)))
    for images in (decoder.decode(archive.get_indices_batch(ids)), decoder.decode_batch(ids)):
        assert images.dtype == dtype and images.is_contiguous() and images.device == decoder.device
        assert torch.equal(images, expected)


@pytest.mark.parametrize("place", ["cpu", "accelerator", *(device["index"] for device in kuat.devices())])
def test_resident_rows_give_the_same_batches(archive, place):
    dataset = GPUDataset(archive, device="cpu" if place == "accelerator" else place)
    if place == "accelerator":
        gather(dataset)
    order = {"batch_size": 10, "shuffle": True, "seed": 3}
    batches = list(dataset.batches(**order, resident=True))
    assert len(batches) == 7
    for (images, labels), (expected, expected_labels) in zip(batches, dataset.batches(**order)):
        assert torch.equal(images, expected) and torch.equal(labels, expected_labels)


def test_the_examples_of_the_readme(archive, path):
    decoder = GPUDecoder(archive, device="cpu")
    indices = archive.get_indices_batch([0, 1, 2, 3])
    # Torch has had a uint32 since 2.3.
    indices = torch.tensor(indices if hasattr(torch, "uint32") else indices.astype(np.int64), device="cpu")
    images = decoder.decode(indices)
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32 and images.max() <= 1
    dataset = GPUDataset(str(path), device="cpu", normalize=True)
    images, labels = dataset[0:40]
    assert images.shape == (40, 3, 32, 32) and labels.shape == (40,)


@pytest.mark.parametrize("backend", [Native, Gather])
def test_indices_of_any_integer_dtype_and_container(archive, backend):
    decoder = GPUDecoder(archive, "cpu", torch.uint8, layout="NHWC")
    arguments = {"dtype": torch.uint8, "layout": "NHWC", "mean": None, "std": None}
    decoder._backend = backend(archive, "cpu" if backend is Native else torch.device("cpu"), arguments)
    expected = pixels(archive, [5, 6])
    indices = archive.get_indices_batch([5, 6])
    small = indices % 100
    expected_small = torch.tensor(decoder.decode(small).numpy())
    forms = [indices.astype(name) for name in ("int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4")]
    forms += [indices.tolist(), np.asfortranarray(indices), torch.tensor(indices.astype(np.int64)).t().clone().t()]
    forms += [torch.tensor(indices.astype(name)) for name in ("int16", "int32", "int64")]
    if hasattr(torch, "uint64"):
        forms += [torch.tensor(indices.astype(name)) for name in ("uint16", "uint32", "uint64")]
    for form in forms:
        assert np.array_equal(decoder.decode(form).numpy(), expected), form
    for form in [small.astype("int8"), small.astype("uint8"), torch.tensor(small.astype("int8"))]:
        assert torch.equal(decoder.decode(form), expected_small)
    readonly = indices.copy()
    readonly.flags.writeable = False
    assert np.array_equal(decoder.decode(readonly).numpy(), expected)
    assert decoder.decode(indices[:0]).shape == (0, 32, 32, 3)

    first, last = (np.full((1, archive.grid_size), index) for index in (0, archive.codebook_size - 1))
    first, last = decoder.decode(first), decoder.decode(last)
    for beyond in (archive.codebook_size, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1):
        form = np.full((1, archive.grid_size), beyond, np.uint64)
        forms = [form] + ([torch.tensor(form)] if hasattr(torch, "uint64") else [])
        forms += [torch.full((1, archive.grid_size), beyond)] if beyond < 2**63 else []
        for form in forms:
            assert torch.equal(decoder.decode(form), last), (beyond, type(form))
    for negative in (-1, -(2**31), -(2**63)):
        assert torch.equal(decoder.decode(np.full((1, archive.grid_size), negative)), first)


def test_what_are_no_indices_is_refused(archive):
    decoder = GPUDecoder(archive, "cpu")
    for shape in [(64,), (2, 63), (1, 2, 64), (0,)]:
        with pytest.raises(ValueError, match=r"expected \(batch, 64\)"):
            decoder.decode(torch.zeros(shape, dtype=torch.int64))
    for indices in [torch.zeros(1, 64), torch.zeros(1, 64, dtype=torch.bool), np.zeros((1, 64)), [["a"]], [[2**64]]]:
        with pytest.raises(TypeError, match="expected integers"):
            decoder.decode(indices)


def test_arguments_that_fit_nothing_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="torch.int64.*torch.float32"):
        GPUDecoder(archive, "cpu", torch.int64)
    with pytest.raises(ValueError, match="layout"):
        GPUDecoder(archive, "cpu", layout="CHWN")
    with pytest.raises(ValueError, match="mean and std"):
        GPUDecoder(archive, "cpu", mean=0.5)
    with pytest.raises(ValueError, match="u8"):
        GPUDecoder(archive, "cpu", torch.uint8, mean=0.5, std=0.5)
    with pytest.raises(FileNotFoundError):
        GPUDecoder(tmp_path / "none.qvq", "cpu")
    with pytest.raises(TypeError):
        GPUDecoder(5, "cpu")


def test_devices(archive):
    assert GPUDecoder(archive, "cpu").decoded_by == GPUDecoder(archive, torch.device("cpu")).decoded_by == "cpu"
    assert GPUDecoder(archive).device.type == next(_accelerators(), "cpu")
    if not torch.cuda.is_available():
        for device in ("cuda", "cuda:1", torch.device("cuda:0")):
            with pytest.raises(kuat.Error, match=r"'cuda.*it has cpu"):
                GPUDecoder(archive, device)
    with pytest.raises(kuat.Error, match="no GPU adapter"):
        GPUDecoder(archive, "no such thing")
    with pytest.raises(TypeError, match="device"):
        GPUDecoder(archive, 1.5)
    for device in ADAPTERS:
        decoder = GPUDecoder(archive, device)
        assert decoder.device == torch.device("cpu")
        assert decoder.decoded_by == archive.device_name(device) != "cpu"
        assert decoder.decoded_by in repr(decoder)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA here")
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_decodes_as_the_cpu_does(archive, dtype):
    here, there = GPUDecoder(archive, "cpu", dtype), GPUDecoder(archive, "cuda", dtype)
    indices = archive.get_indices_batch(range(64))
    assert there.device.type == "cuda" and there.decoded_by == f"torch on {there.device}"
    assert torch.equal(there.decode(indices).cpu(), here.decode(indices))
    assert torch.equal(there.decode(torch.tensor(indices.astype(np.int64)).cuda()).cpu(), here.decode(indices))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA here")
def test_cuda_batches_are_those_of_the_cpu(archive):
    here, there = GPUDataset(archive, "cpu"), GPUDataset(archive, "cuda")
    images, labels = there[:]
    assert images.is_cuda and labels.is_cuda
    pairs = zip(there.batches(10, shuffle=True), here.batches(10, shuffle=True))
    for (images, labels), (expected, numbers) in pairs:
        assert torch.equal(images.cpu(), expected) and torch.equal(labels.cpu(), numbers)


@pytest.mark.parametrize("device", ADAPTERS)
def test_adapters_decode_as_the_cpu_does(archive, device):
    for dtype in DTYPES:
        here, there = GPUDecoder(archive, "cpu", dtype), GPUDecoder(archive, device, dtype)
        expected, found = here.decode_batch(range(64)), there.decode_batch(range(64))
        if dtype == torch.uint8:
            assert torch.equal(found, expected)
        assert torch.allclose(found.float(), expected.float(), atol=1e-5 if dtype == torch.float32 else 1e-3)
        assert torch.equal(there.decode(archive.get_indices_batch(range(64))), found)


# (image height, image width, patch height, patch width, channels): also patches that stick out of the image.
GEOMETRIES = [(16, 16, 4, 4, 3), (14, 22, 4, 4, 3), (12, 20, 2, 5, 1), (9, 7, 3, 2, 4), (5, 5, 8, 8, 3)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bits", [1, 3, 7, 8, 11, 16, 17, 25, 32])
def test_torch_gathers_the_same_bits(tmp_path, bits, geometry):
    height, width, tall, wide, channels = geometry
    random = np.random.default_rng(bits)
    codewords = min(1 << bits, 3000)
    codebook = random.integers(0, 256, (codewords, tall, wide, channels), dtype=np.uint8)
    # Some indices lie beyond the codebook where it does not use the whole range.
    indices = random.integers(0, min(codewords + 10, 1 << bits), (6, -(-height // tall), -(-width // wide)))
    if bits == 32:
        indices[0, 0, 0] = 2**32 - 1
    archive = KuatArchive(write_archive(tmp_path / "a.qvq", indices, codebook, bits, (height, width)))
    ids = [5, 0, 1, 2]
    expected = pixels(archive, ids)
    mean, std = [0.1 * (c + 1) for c in range(channels)], [0.3 - 0.05 * c for c in range(channels)]
    for dtype in DTYPES:
        for layout in ("NCHW", "NHWC"):
            for normal in [{"mean": None, "std": None}, {"mean": mean, "std": std}, {"mean": 0.3, "std": 0.7}]:
                if dtype == torch.uint8 and normal["mean"] is not None:
                    continue
                output = {"dtype": dtype, "layout": layout, **normal}
                native, gather = Native(archive, "cpu", output), Gather(archive, torch.device("cpu"), output)
                images = gather.from_samples(ids)
                assert images.is_contiguous() and torch.equal(images, native.from_samples(ids))
                array = images.numpy() if layout == "NHWC" else images.numpy().transpose(0, 2, 3, 1)
                if dtype == torch.uint8:
                    assert np.array_equal(array, expected)
                else:
                    given = {} if normal["mean"] is None else normal
                    assert np.array_equal(array, values(expected, array.dtype, **given))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layers_become_values_on_a_device_of_torch(tmp_path, layout, dtype):
    random = np.random.default_rng(0)
    items = [(random.integers(0, 256, (28, 40, 3), dtype=np.uint8), label) for label in range(5)]
    options = {"codebook": "builtin", "quality": 50, "size": (40, 28), "progress": False}
    kuat.encode(items, tmp_path / "a.qvq", **options)
    archive = KuatArchive(tmp_path / "a.qvq")
    for normal in [{"mean": None, "std": None}, {"mean": MEAN, "std": STD}, {"mean": 0.3, "std": 0.7}]:
        if dtype == torch.uint8 and normal["mean"] is not None:
            continue
        output = {"dtype": dtype, "layout": layout, **normal}
        sent, native = Sent(archive, torch.device("cpu"), output), Native(archive, "cpu", output)
        images = sent.from_samples([4, 0, 1])
        assert images.is_contiguous() and images.dtype == dtype
        assert torch.equal(images, native.from_samples([4, 0, 1]))
    dataset = GPUDataset(archive, "cpu", dtype=dtype, layout=layout, normalize=False)
    loaded = list(dataset.batches(2, shuffle=True, seed=0, epoch=0))
    labels = torch.cat([labels for _, labels in loaded])
    assert sorted(labels.tolist()) == list(range(5))
    expected = GPUDecoder(archive, "cpu", dtype, layout=layout).decode_batch(labels.tolist())
    assert torch.equal(torch.cat([images for images, _ in loaded]), expected)


def test_pickled_decoders_and_datasets_decode_alike(archive):
    decoder = GPUDecoder(archive, torch.device("cpu"), torch.float16, layout="NHWC", mean=0.5, std=0.25)
    copy = pickle.loads(pickle.dumps(decoder))
    assert torch.equal(copy.decode_batch([1, 2]), decoder.decode_batch([1, 2]))
    dataset = GPUDataset(archive, "cpu")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.archive is copy.decoder.archive and copy.archive is not archive
    assert torch.equal(copy[0:3][0], dataset[0:3][0])


# Memory


def test_tensors_share_the_memory_of_batches(archive):
    batch = archive.decode_batch([1, 2], dtype="float32", to="dlpack")
    tensor, array = torch.from_dlpack(batch), batch.numpy()
    assert tensor.data_ptr() == array.ctypes.data
    tensor.fill_(7)
    assert (array == 7).all()
    images, labels = next(GPUDataset(archive, "cpu").batches(4))
    images += 1
    labels += 1


@pytest.mark.parametrize("make", [lambda dataset: dataset, gather])
def test_memory_returns(dataset, make):
    gc.collect()
    before = kuat._kuat.live_memory()
    dataset = make(dataset)
    images, labels = dataset[[1, 2, 3]]
    indices = dataset.decoder.decode(dataset.archive.get_indices_batch([0]))
    one = images[0]
    batches = dataset.batches(8)
    some = next(batches)
    sample = dataset.__getitems__([3, 4])
    assert images.shape and indices.shape and some[0].shape and len(sample) == 2
    del images, indices, one, batches, some, sample, dataset, labels
    gc.collect()
    assert kuat._kuat.live_memory() == before


# GPUDataset


@pytest.mark.parametrize("make", [lambda dataset: dataset, gather])
def test_items_and_batches_of_a_dataset(dataset, archive, make):
    dataset = make(dataset)
    expected = torch.tensor(planes(values(pixels(archive, range(64)), mean=MEAN, std=STD)).copy())
    numbers = [-1 if i == 7 else i % 4 for i in range(64)]
    assert len(dataset) == 64 and dataset.classes == ["a", "b", "c", "d"]
    assert dataset.decoder.archive is dataset.archive
    for i in (0, 7, -1, np.int64(3), torch.tensor(9)):
        image, label = dataset[i]
        assert torch.equal(image, expected[int(i)]) and label == numbers[int(i)] and type(label) is int
    ids = [5, 7, -2, 5]
    forms = [ids, tuple(ids), np.array(ids), np.array(ids, np.int16), torch.tensor(ids), iter(ids)]
    for form in forms:
        images, labels = dataset[form]
        assert torch.equal(images, expected[ids])
        assert labels.dtype == torch.int64 and labels.tolist() == [numbers[i] for i in ids]
    for part in (slice(0, 8), slice(None, None, -3), slice(60, 100), slice(5, 5)):
        images, labels = dataset[part]
        assert np.array_equal(images.numpy(), expected.numpy()[part]) and labels.tolist() == numbers[part]
    images, labels = dataset[[]]
    assert images.shape == (0, 3, 32, 32) and labels.shape == (0,)
    for beyond in (64, -65, [0, 64], 2**70):
        with pytest.raises(IndexError):
            dataset[beyond]
    for wrong in ("a", 1.5, [0.5], torch.zeros(64, dtype=torch.bool), None):
        with pytest.raises(TypeError):
            dataset[wrong]
    assert [label for _, label in dataset] == numbers


def test_normalization(archive, tmp_path):
    images = pixels(archive, [0, 1])

    def found(**options):
        return GPUDataset(archive, "cpu", layout="NHWC", **options)[0:2][0].numpy()

    assert np.array_equal(found(), values(images, mean=MEAN, std=STD))
    assert np.array_equal(found(normalize=False), values(images))
    assert np.array_equal(found(normalize=(0.5, 0.25)), values(images, mean=0.5, std=0.25))
    assert np.array_equal(found(normalize=False, dtype=torch.uint8), images)
    assert np.array_equal(found(dtype=torch.float16), values(images, np.float16, mean=MEAN, std=STD))
    with pytest.raises(ValueError, match="normalize=False"):
        GPUDataset(archive, "cpu", dtype=torch.uint8)
    with pytest.raises(ValueError, match="normalize is 'yes'"):
        GPUDataset(archive, "cpu", normalize="yes")
    codebook = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    grey = write_archive(tmp_path / "grey.qvq", np.zeros((2, 2, 2), int), codebook, 1, (8, 8))
    with pytest.raises(ValueError, match="the images have 1.*normalize"):
        GPUDataset(grey, "cpu")
    dataset = GPUDataset(grey, "cpu", normalize=False)
    assert dataset[0][0].shape == (1, 8, 8) and dataset[0][1] == -1 and dataset.classes is None


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", [lambda dataset: dataset, gather])
def test_batches_of_an_epoch(path, make, shuffle):
    dataset = make(GPUDataset(path, "cpu"))
    everything, numbers = dataset[:]
    epochs = []
    for epoch in (0, 1, 0):
        batches = dataset.batches(10, shuffle, seed=4, epoch=epoch)
        assert len(batches) == 7 and iter(batches) is batches
        order = [samples for samples, _, _ in dataset.archive._batches(10, shuffle=shuffle, seed=4, epoch=epoch)]
        for ids, (images, labels) in zip(order, batches):
            ids = ids.tolist()
            assert torch.equal(images, everything[ids]) and torch.equal(labels, numbers[ids])
        epochs.append(np.concatenate(order).tolist())
        assert next(batches, None) is None
    assert epochs[0] == epochs[2] and sorted(epochs[0]) == list(range(64))
    assert (epochs[0] != epochs[1]) == (epochs[0] != sorted(epochs[0])) == shuffle

    last = dataset.batches(10, drop_last=True)
    assert len(last) == 6 and [len(images) for images, _ in last] == [10] * 6
    shares = [dataset.batches(8, shuffle, rank=rank, world_size=2, prefetch=0) for rank in (0, 1)]
    seen = torch.cat([images for share in shares for images, _ in share])
    assert len(seen) == 64 and seen.sum().item() == pytest.approx(everything.sum().item(), rel=1e-4)
    for wrong in ({"batch_size": 0}, {"batch_size": 8, "rank": 2, "world_size": 2}):
        with pytest.raises(ValueError):
            dataset.batches(**wrong)


@pytest.mark.parametrize("workers", [None, "fork", "spawn"])
@pytest.mark.parametrize("collate", [False, True])
def test_data_loader(dataset, workers, collate):
    everything, numbers = dataset[:]  # Kuat's threads run before the fork.
    options = {"num_workers": 2, "multiprocessing_context": workers} if workers else {}
    if collate:
        options["collate_fn"] = dataset.collate
    found = list(DataLoader(dataset, batch_size=10, **options))
    assert [len(images) for images, _ in found] == [10] * 6 + [4]
    assert torch.equal(torch.cat([images for images, _ in found]), everything)
    assert torch.equal(torch.cat([labels for _, labels in found]), numbers)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_that_shuffles(dataset, workers):
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=workers, generator=generator)
    first, second = (torch.cat([labels for _, labels in loader]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(dataset[:][1].tolist())
    assert first.tolist() != second.tolist()


def named_threads(expected):
    """How many of kuat's threads there are. One that has just started has yet to take its name, so fewer than expected
    are counted again for a while."""
    for _ in range(500):
        names = [Path(f"/proc/self/task/{task}/comm").read_text() for task in os.listdir("/proc/self/task")]
        count = sum(name.startswith("kuat-") for name in names)
        if count >= expected:
            break
        time.sleep(0.01)
    return count


def test_workers_share_the_cores(dataset):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    if not Path("/proc/self/task").exists():
        pytest.skip("counts threads in /proc")
    expected = max(1, cores // 2)

    def threads(_):
        return named_threads(expected)

    loader = DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=threads, multiprocessing_context="fork")
    assert set(loader) == {expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_workers_have_the_threads_that_the_user_asks_for(dataset):
    if not Path("/proc/self/task").exists():
        pytest.skip("counts threads in /proc")

    def threads(_):
        return named_threads(5)

    def ask(_):
        kuat.set_num_threads(5)

    loader = DataLoader(
        dataset, batch_size=8, num_workers=1, collate_fn=threads, worker_init_fn=ask, multiprocessing_context="fork"
    )
    assert set(loader) == {5}


class Flipped(GPUDataset):
    """What users do to add their own transform."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        assert image.ndim == 3
        return image.flip(-1), label, index


def test_subclasses_get_single_samples(dataset):
    flipped = Flipped(dataset.archive, "cpu")
    images, labels, indices = next(iter(DataLoader(flipped, batch_size=4)))
    expected, numbers = dataset[0:4]
    assert torch.equal(images, expected.flip(-1)) and torch.equal(labels, numbers)
    assert indices.tolist() == [0, 1, 2, 3]


def test_samples_that_are_changed_are_not_taken_for_the_batch(dataset):
    samples = dataset.__getitems__([0, 1])
    with pytest.raises(TypeError):
        samples[0] = None
    changed = [(image * 0, label) for image, label in samples]
    assert dataset.collate(changed)[0].abs().sum() == 0
    assert len(dataset.collate(samples[:1])[0]) == 1


def test_collating_a_batch_copies_nothing(dataset):
    samples = dataset.__getitems__([4, 7, 9])
    assert [label for _, label in samples] == [0, -1, 1] and samples[0][0].shape == (3, 32, 32)
    images, labels = dataset.collate(samples)
    assert images.data_ptr() == samples[0][0].data_ptr() and labels.tolist() == [0, -1, 1]
    copied, numbers = dataset.collate(list(samples))
    assert copied.data_ptr() != images.data_ptr() and torch.equal(copied, images) and torch.equal(numbers, labels)
    if TORCH >= (2, 0):
        for batch, _ in DataLoader(Subset(dataset, range(8)), batch_size=4, collate_fn=dataset.collate):
            assert batch._base is None and batch.shape == (4, 3, 32, 32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_decodes_after_its_parent_did(dataset):
    expected = dataset[0:8][0]
    batches = dataset.batches(8)
    next(batches)
    child = os.fork()
    if child == 0:
        fine = torch.equal(dataset[0:8][0], expected) and len(list(dataset.batches(16))) == 4
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(batches)) == 7


def test_without_torch_the_error_says_what_to_do(tmp_path):
    code = "import sys; sys.modules['torch'] = None; import kuat; kuat.GPUDataset"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1
    assert "ImportError: GPUDecoder and GPUDataset return torch tensors" in ran.stderr and "pip install" in ran.stderr
    code = "import sys, kuat; kuat.KuatArchive; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


# Training


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """An archive of 10 classes: the photographs of cifar32 in KUAT_TEST_IMAGES, else textures."""
    path = tmp_path_factory.mktemp("classes") / "classes.qvq"
    photos = Path(os.environ.get("KUAT_TEST_IMAGES", "")) / "cifar32"
    if photos.is_dir():
        items = [
            (np.asarray(Image.open(file).convert("RGB")), label)
            for label, folder in enumerate(sorted(folder for folder in photos.iterdir() if folder.is_dir()))
            for file in sorted(folder.iterdir())[:50]
        ]
    else:
        items = [(texture(i % 10, i), i % 10) for i in range(500)]
    kuat.encode(items, path, size=32, patch=2, codebook=4096, progress=False)
    return path


def texture(label, seed):
    """Waves whose direction and length belong to a class, of random colour and phase, under noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    angle, length = label % 5 * np.pi / 5, 3 + 4 * (label // 5)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / length + random.uniform(0, 6))
    image = 128 + wave[..., None] * random.uniform(20, 90, 3) + random.normal(0, 15, (32, 32, 3))
    return image.clip(0, 255).astype(np.uint8)


def learning_curve(dataset, steps=150):
    """The cross-entropy at each step of training a small network, batches of 50."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(32 * 64, 10),
    ).to(dataset.decoder.device)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    curve, epoch = [], 0
    while len(curve) < steps:
        for images, labels in dataset.batches(50, shuffle=True, seed=1, epoch=epoch):
            if images.dtype == torch.uint8:
                images = images.float() / 127.5 - 1
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        epoch += 1
    return np.array(curve[:steps])


@pytest.fixture(scope="session")
def curve(classes):
    return learning_curve(GPUDataset(classes, "cpu"))


def test_a_network_learns(curve):
    """Chance is ln 10 = 2.3; after 150 steps of 50 images it has long been left behind."""
    assert 1.9 < curve[0] < 3.5
    assert curve[-10:].mean() < 0.5


def test_a_network_learns_the_same_from_every_backend(classes, curve):
    datasets = [gather(GPUDataset(classes, "cpu")), *(GPUDataset(classes, adapter) for adapter in ADAPTERS)]
    expected = curve[:20]
    for dataset in datasets:
        found = learning_curve(dataset, 20)
        assert np.allclose(found, expected, atol=1e-4), dataset
    # With the same bytes the curves are the same, up to the order in which torch's own threads add.
    options = {"normalize": False, "dtype": torch.uint8}
    expected = learning_curve(GPUDataset(classes, "cpu", **options), 20)
    for device in ADAPTERS:
        assert np.allclose(learning_curve(GPUDataset(classes, device, **options), 20), expected, atol=1e-4)


def test_optimizers_work_after_kuat_has_looked_for_gpus():
    pytest.importorskip("triton")
    # OpenGL drivers bring an LLVM of their own, which breaks the one of triton, which torch's optimizers import.
    code = """
import kuat, torch
kuat.devices()
parameter = torch.nn.Parameter(torch.zeros(3))
optimizer = torch.optim.Adam([parameter])
parameter.sum().backward()
optimizer.step()
"""
    environment = {name: value for name, value in os.environ.items() if name != "WGPU_BACKEND"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.fixture
def broken(tmp_path):
    """(path, images as they were): the samples 2 and 7 of 9 are damaged."""
    path = make(tmp_path / "broken.qvq", KINDS["rgb"])
    images = kuat.KuatArchive(path).decode_batch(slice(None))
    file = bytearray(path.read_bytes())
    for row in kuat.KuatArchive(path).get_packed_batch([2, 7]):
        place = file.index(row.tobytes())
        file[place + 3] ^= 1
    path.write_bytes(file)
    return path, torch.from_numpy(images)


def ways_of(archive):
    """Data sets of every way from an archive to tensors of bytes."""
    output = {"dtype": torch.uint8, "layout": "NHWC", "mean": None, "std": None}
    for backend in (
        Native(archive, "cpu", output),
        *[kind(archive, torch.device("cpu"), output) for kind in (Gather, Sent)],
    ):
        dataset = GPUDataset(archive, device="cpu", normalize=False, layout="NHWC", dtype=torch.uint8)
        dataset.decoder._backend = backend
        yield dataset


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.filterwarnings("ignore::kuat.DamageWarning")
def test_damaged_samples_are_left_out_with_their_labels(broken, resident):
    path, images = broken
    archive = kuat.KuatArchive(path, damaged="skip")
    good = [0, 1, 3, 4, 5, 6, 8]
    for dataset in ways_of(archive):
        found, labels = zip(*dataset.batches(4, resident=resident))
        assert [len(batch) for batch in found] == [len(batch) for batch in labels] == [3, 3, 1]
        assert torch.equal(torch.cat(found), images[good])
        assert torch.cat(labels).tolist() == archive.labels(good).tolist()
        found, labels = dataset[0:9]
        assert torch.equal(found, images[good]) and labels.tolist() == archive.labels(good).tolist()
        assert torch.equal(dataset[8][0], images[8])
        with pytest.raises(kuat.Error, match="sample 7 is damaged"):
            dataset[7]
        loader = torch.utils.data.DataLoader(dataset, batch_size=9, collate_fn=dataset.collate)
        assert torch.equal(next(iter(loader))[0], images[good]) or TORCH < (2, 0)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.filterwarnings("ignore::kuat.DamageWarning")
def test_damaged_samples_are_masked_and_have_no_label(broken, resident):
    path, images = broken
    archive = kuat.KuatArchive(path, damaged="mask")
    images[[2, 7]] = 0
    for dataset in ways_of(archive):
        found, labels = map(torch.cat, zip(*dataset.batches(4, resident=resident)))
        assert torch.equal(found, images) and labels[[2, 7]].tolist() == [-1, -1] and labels[[1, 3]].tolist() == [0, 2]
        found, labels = dataset[[7, 3]]
        assert torch.equal(found, images[[7, 3]]) and labels.tolist() == [-1, 2]
        image, label = dataset[2]
        assert not image.any() and label == -1
    normalized = GPUDataset(archive, device="cpu")
    assert not normalized[2][0].any() and normalized[3][0].any()


def test_damage_raises_through_every_way(broken):
    path, _ = broken
    for dataset in ways_of(kuat.KuatArchive(path)):
        with pytest.raises(kuat.Error, match="sample 2 is damaged"):
            dataset[0:9]
        for resident in (False, True):
            with pytest.raises(kuat.Error, match="sample 2 is damaged"):
                list(dataset.batches(4, resident=resident))
