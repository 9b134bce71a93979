"""Reading archives, checked by numpy alone."""

import copy
import ctypes
import gc
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from oracle import assembled, decoded, indices, parsed

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


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    return {name: make(folder / f"{name}.qvq", geometry) for name, geometry in GEOMETRIES.items()}


@pytest.fixture(scope="module", params=GEOMETRIES)
def case(request, paths):
    path = paths[request.param]
    return SimpleNamespace(
        name=request.param, path=path, archive=kuat.KuatArchive(path), images=decoded(path), tensors=parsed(path)[1]
    )


@pytest.fixture
def path(paths):
    return paths["rgb"]


@pytest.fixture
def archive(path):
    return kuat.KuatArchive(path)


@pytest.fixture
def images(path):
    return decoded(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An archive without labels, captions and class names."""
    path = tmp_path_factory.mktemp("plain") / "plain.qvq"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    kuat.encode(images, path, size=(12, 8), codebook=16, progress=False)
    return kuat.KuatArchive(path)


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


# What an archive is.


def test_properties(case):
    (width, height), (q, p), channels, codewords, bits = GEOMETRIES[case.name]
    archive, grid = case.archive, (-(-height // p), -(-width // q))
    assert archive.len() == len(archive) == SAMPLES
    assert archive.codebook_size == codewords and archive.index_bits == bits
    assert archive.patch_shape == (p, q) and archive.patch_size == (p if p == q else (p, q))
    assert archive.dimensions == (channels, height, width)
    assert archive.grid_shape == grid and archive.grid_size == grid[0] * grid[1]
    assert archive.classes == ["a", "b", "c"]
    assert archive.path == case.path and isinstance(archive.path, Path)
    assert repr(archive) == (
        f'KuatArchive("{case.path}", {SAMPLES} images of {height}x{width}x{channels}, {codewords} codewords of {p}x{q})'
    )


def test_info_is_what_the_header_says(case):
    metadata, tensors = parsed(case.path)
    info = case.archive.info()
    numbers = ("samples", "image_width", "image_height", "channels", "patch_width", "patch_height", "index_bits")
    assert [info[key] for key in numbers] == [int(metadata[key]) for key in numbers]
    assert (info["grid_height"], info["grid_width"]) == case.archive.grid_shape
    assert info["archive"] == str(case.path) and info["file_len"] == case.path.stat().st_size
    assert info["codewords"] == len(tensors["codebook"])
    assert info["bytes_per_image"] == tensors["indices"][0].nbytes
    assert info["classes"] == ["a", "b", "c"] and info["metadata"] == metadata
    assert info["labels"] is info["captions"] is info["checksums"] is True
    # Patches that stick out are found by what an encoder fills them with.
    assert info["mean_psnr_db"] == float(metadata["mean_psnr_db"]) <= 100
    assert {name: tensor["shape"] for name, tensor in info["tensors"].items()} == {
        name: list(tensor.shape) for name, tensor in tensors.items()
    }


def test_paths_of_every_kind(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    for given in (path, str(path), path.name, os.path.join(".", path.name)):
        archive = kuat.KuatArchive(given)
        assert archive.path.is_absolute() and archive.path.samefile(path) and len(archive) == SAMPLES
    for wrong in (None, 5, 2.5, [path]):
        with pytest.raises(TypeError):
            kuat.KuatArchive(wrong)


# Samples.


def test_decode_one(case):
    for i in (0, SAMPLES - 1, -1, np.int64(3), np.uint8(2)):
        assert_same(case.archive.decode(i), case.images[i])
    for i in (SAMPLES, -SAMPLES - 1, 2**62):
        with pytest.raises(IndexError, match=f"{SAMPLES} samples"):
            case.archive.decode(i)
    for i in ("0", 0.0, None, [0]):
        with pytest.raises(TypeError):
            case.archive.decode(i)


def test_every_output(case):
    ids = [3, 0, -1, 3]
    for output in outputs(case.images.shape[3]):
        batch = case.archive.decode_batch(ids, device="cpu", **output)
        assert_same(batch, expected(case.images[ids], **output), output["dtype"])
        assert batch.flags.c_contiguous and batch.flags.writeable and batch.ctypes.data % 64 == 0


def test_names_of_dtypes_and_layouts(archive, images):
    names = {
        "uint8": ("u8", np.uint8, np.dtype("uint8"), None),
        "float16": ("f16", "half", np.float16, np.dtype("float16")),
        "float32": ("f32", np.float32, np.dtype("float32")),
    }
    for dtype, others in names.items():
        for other in others:
            assert_same(archive.decode_batch([0], dtype=other), expected(images[:1], dtype), dtype)
    for wrong in ("float64", np.float64, "int8", float, 8, ""):
        with pytest.raises(ValueError, match="dtype"):
            archive.decode_batch([0], dtype=wrong)
    for wrong in ("HWC", "", "NCWH"):
        with pytest.raises(ValueError, match="layout"):
            archive.decode_batch([0], layout=wrong)
    for wrong in ("torch", "", "jax"):
        with pytest.raises(ValueError, match="numpy.*dlpack"):
            archive.decode_batch([0], to=wrong)
    with pytest.raises(TypeError):
        archive.decode_batch([0], layout=None)


def test_normalisation(archive, images):
    for mean, std in (
        ([0.1, 0.2, 0.3], [1, 2, 3]),
        (np.array([0.1, 0.2, 0.3]), np.array([1, 2, 3], np.float32)),
        (np.float32(0.5), 2),
    ):
        output = {"dtype": "float32", "mean": mean, "std": std}
        assert_same(archive.decode_batch([1], **output), expected(images[1:2], **output), "float32")
    assert_same(
        archive.decode_batch([1], dtype="f32", mean=kuat.IMAGENET_MEAN, std=kuat.IMAGENET_STD),
        expected(images[1:2], "float32", mean=kuat.IMAGENET_MEAN, std=kuat.IMAGENET_STD),
        "float32",
    )
    for mean, std, problem in (
        (0.5, None, "go together"),
        (None, 0.5, "go together"),
        ((0.5, 0.5), (0.5, 0.5), "channels"),
        (0.5, 0, "normalise"),
        (float("nan"), 1, "normalise"),
        ((), (), "0 means"),
    ):
        with pytest.raises(ValueError, match=problem):
            archive.decode_batch([0], dtype="float32", mean=mean, std=std)
    with pytest.raises(ValueError, match="u8 output is never normalised"):
        archive.decode_batch([0], mean=0.5, std=0.5)
    with pytest.raises(TypeError):
        archive.decode_batch([0], dtype="float32", mean="grey", std=1)


IDS = {
    "list": [1, 4, 1],
    "tuple": (2,),
    "range": range(7, 0, -3),
    "negative": [-1, -SAMPLES],
    "slice": slice(1, 6, 2),
    "slice of all": slice(None),
    "slice backwards": slice(None, None, -1),
    "slice beyond": slice(5, 1000),
    "slice of nothing": slice(3, 3),
    "empty": [],
    "empty array": np.array([], np.int64),
    "strided array": np.arange(9)[::2],
    "array backwards": np.arange(9)[::-1],
    "read-only array": np.broadcast_to(np.int64(3), 4),
    "list of numpy's": [np.int8(1), np.uint64(2), 3],
    "big-endian array": np.array([1, 2], ">i4"),
    **{f"array of {dtype}": np.array([0, 3, 8], dtype) for dtype in "b B h H i I l L q Q".split()},
    **{f"negative {dtype}": np.array([-1, -9, 3], dtype) for dtype in "b h i l q".split()},
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_samples_of_every_kind(archive, images, path, ids):
    wanted = images[ids if isinstance(ids, slice) else np.array(ids, np.int64)]
    labels = parsed(path)[1]["labels"]
    assert_same(archive.decode_batch(ids), wanted)
    wanted_labels = labels[ids if isinstance(ids, slice) else np.array(ids, np.int64)]
    np.testing.assert_array_equal(archive.labels(ids), wanted_labels)
    assert len(archive.captions(ids)) == len(archive.get_indices_batch(ids)) == len(archive.get_packed_batch(ids))
    if isinstance(ids, slice):
        return
    # What can be gone through but once.
    assert_same(archive.decode_batch(i for i in ids), wanted)
    assert_same(archive.decode_batch(iter(list(ids))), wanted)


def test_samples_that_are_none(archive):
    for name in "decode_batch labels captions get_indices_batch get_packed_batch".split():
        method = getattr(archive, name)
        for ids in ([SAMPLES], [0, -SAMPLES - 1], range(20), np.array([2**63], np.uint64), [2**70], [0, -(2**70)]):
            with pytest.raises(IndexError, match=f"{SAMPLES} samples"):
                method(ids)
        for ids in (
            None, 0, np.int64(0), np.array(0), 1.5, "0", "", [0.0], ["0"], [None], [[0]], [0, 1.0],
            np.array([0.0]), np.array([[0]]), np.array(["0"]), np.array([True] * SAMPLES), np.array([], bool),
            [True] * SAMPLES, [False, True], b"\0", [[]], {"a": 1}, (i / 1 for i in range(2)), object(),
        ):  # fmt: skip
            with pytest.raises(TypeError):
                method(ids)

    def broken():
        yield 0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        archive.labels(broken())


def test_labels_and_captions(case):
    archive, labels = case.archive, case.tensors["labels"]
    assert labels.tolist() == [i % 4 - 1 for i in range(SAMPLES)]
    np.testing.assert_array_equal(archive.all_labels(), labels)
    assert archive.all_labels().dtype == archive.labels([0]).dtype == np.int64
    assert [archive.label(i) for i in range(SAMPLES)] == [None if label < 0 else label for label in labels.tolist()]
    assert archive.label(-2) == labels[-2] and type(archive.label(1)) is int
    assert archive.caption(-2) == f"caption {SAMPLES - 2} \N{SNOWMAN}"
    assert archive.captions(slice(2)) == [archive.caption(0), archive.caption(1)] and archive.captions([]) == []
    for method in (archive.label, archive.caption):
        with pytest.raises(IndexError):
            method(SAMPLES)
        with pytest.raises(TypeError):
            method("0")


def test_no_labels_and_captions(plain):
    assert plain.label(0) is plain.caption(0) is plain.captions([0, 1]) is plain.captions([]) is plain.classes is None
    assert plain.all_labels().tolist() == plain.labels(slice(None)).tolist() == [-1, -1, -1]
    with pytest.raises(IndexError):
        plain.label(3)
    with pytest.raises(IndexError):
        plain.caption(3)
    with pytest.raises(IndexError):
        plain.captions([3])


def test_indices_and_codebook(case):
    archive, codebook = case.archive, case.tensors["codebook"]
    ids = [2, -1, 0]
    found = archive.get_indices_batch(ids)
    assert found.dtype == np.uint32 and found.shape == (3, archive.grid_size)
    np.testing.assert_array_equal(found, indices(case.path)[ids].reshape(3, -1))
    rows = case.tensors["indices"].reshape(SAMPLES, -1)[ids]
    packed = archive.get_packed_batch(ids)
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(packed, np.ascontiguousarray(rows).view(np.uint8).reshape(3, -1))

    np.testing.assert_array_equal(archive.codebook, codebook)
    assert archive.codebook.dtype == np.uint8 and archive.codebook.flags.writeable
    floats = archive.codebook_numpy()
    assert_same(floats, codebook.reshape(len(codebook), -1) / 255, "float32")
    _, height, width = archive.dimensions
    patches = floats[found].reshape(3, -1, *codebook.shape[1:])
    places = np.arange(3 * archive.grid_size).reshape(3, *archive.grid_shape)
    images = assembled(patches.reshape(-1, *codebook.shape[1:]), places, height, width)
    np.testing.assert_array_equal(images, archive.decode_batch(ids, dtype="float32", device="cpu"))
    # Copies.
    archive.codebook[:] = 0
    archive.codebook_numpy()[:] = 0
    assert_same(archive.decode(0), case.images[0])


def test_decode_indices(case):
    archive, codebook = case.archive, case.tensors["codebook"]
    found = archive.get_indices_batch([1, 4])
    for output in outputs(case.images.shape[3]):
        batch = archive.decode_indices(found, **output)
        assert_same(batch, expected(case.images[[1, 4]], **output), output["dtype"])
    last = len(codebook) - 1
    for beyond in (len(codebook), 2**25, 2**32 - 1):
        beyond = np.full((2, archive.grid_size), beyond, np.uint32)
        beyond[1] = found[1]
        batch = archive.decode_indices(beyond)
        whole = np.concatenate([np.full((1, *archive.grid_shape), last), indices(case.path)[4:5]])
        assert_same(batch, assembled(codebook, whole, *archive.dimensions[1:]))
    assert archive.decode_indices(found[:0]).shape == (0, *case.images.shape[1:])
    out = np.empty((2, *case.images.shape[1:]), np.uint8)
    assert archive.decode_indices(found, out) is out
    assert_same(out, case.images[[1, 4]])
    assert isinstance(archive.decode_indices(found, to="dlpack"), kuat.Batch)
    for wrong in (found.astype(np.int64), found[0], found.tolist(), found.astype(np.float32)):
        with pytest.raises(TypeError):
            archive.decode_indices(wrong)
    with pytest.raises(ValueError, match="shape"):
        archive.decode_indices(found[:, 1:].copy())
    for wrong in (np.asfortranarray(found), found[:, ::-1], np.repeat(found, 2, 1)[:, ::2]):
        with pytest.raises(ValueError, match="C-contiguous"):
            archive.decode_indices(wrong)


def test_out(archive, images):
    for output in outputs(3):
        wanted = expected(images[[1, 2]], **output)
        out = np.empty(wanted.shape, output["dtype"])
        assert archive.decode_batch([1, 2], out, device="cpu", **output) is out
        assert_same(out, wanted, output["dtype"])
    out = np.zeros((4, 24, 40, 3), np.uint8)
    archive.decode_batch([5, 6], out=out[1:3])
    assert_same(out[1:3], images[[5, 6]])
    assert not out[0].any() and not out[3].any()

    out = out[:2]
    shapes = [(1, 24, 40, 3), (2, 3, 24, 40), (2, 24, 40), (2 * 24 * 40 * 3,), (3, 24, 40, 3)]
    wrong = [np.empty(shape, np.uint8) for shape in shapes]
    wrong += [np.empty((2, 24, 40, 6), np.uint8)[..., ::2], np.asfortranarray(out), out[::-1]]
    frozen = out.copy()
    frozen.flags.writeable = False
    before = [array.copy() for array in wrong]
    for array in [*wrong, frozen]:
        with pytest.raises(ValueError, match="out"):
            archive.decode_batch([1, 2], out=array)
    assert all((array == copied).all() for array, copied in zip(wrong, before))
    for array in (np.empty(out.shape, np.float32), np.empty(out.shape, np.int8), out.tolist(), bytearray(out.size), 5):
        with pytest.raises(TypeError, match="out"):
            archive.decode_batch([1, 2], out=array)
    with pytest.raises(TypeError, match="out"):
        archive.decode_batch([1, 2], out=out, dtype="float32")
    with pytest.raises(ValueError, match="exclude"):
        archive.decode_batch([1, 2], out=out, to="dlpack")
    # Nothing is written if samples are wrong.
    out[:] = 7
    with pytest.raises(IndexError):
        archive.decode_batch([1, 99], out=out)
    assert (out == 7).all()


# Whole archives.


def test_verify(archive, path, tmp_path):
    assert archive.verify() == {
        "archive": str(path), "ok": True, "samples": SAMPLES, "bad_samples": [], "problems": [], "unchecked": [],
    }  # fmt: skip
    calls = []
    assert archive.verify(progress=lambda *call: calls.append(call))["ok"]
    assert calls[-1] == ("verifying", SAMPLES, SAMPLES) and calls == sorted(calls)

    def failing(*call):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        archive.verify(progress=failing)

    data = bytearray(path.read_bytes())
    row = parsed(path)[1]["indices"][4].tobytes()
    assert data.count(row) == 1
    data[data.index(row) + 3] ^= 4
    damaged = tmp_path / "damaged.qvq"
    damaged.write_bytes(data)
    report = kuat.KuatArchive(damaged).verify()
    assert not report["ok"] and [bad["sample"] for bad in report["bad_samples"]] == [4]
    assert "CRC-32C" in report["bad_samples"][0]["problem"]
    assert report["archive"] == str(damaged)


def test_with_statement_and_close(path, images):
    with kuat.KuatArchive(path) as archive:
        array, batch = archive.decode(0), archive.decode_batch([1], to="dlpack")
    archive.close()
    # What came of it stays.
    assert_same(array, images[0])
    assert_same(np.from_dlpack(batch), images[1:2])
    assert archive.path == path and repr(archive) == f'KuatArchive("{path}", closed)'
    with pytest.raises(ValueError, match="closed"):
        archive.decode(0)
    attributes = "codebook_size patch_size patch_shape dimensions grid_size grid_shape index_bits classes codebook"
    for name in attributes.split():
        with pytest.raises(ValueError, match="closed"):
            getattr(archive, name)
    for name in "len __len__ info verify all_labels codebook_numpy device_name".split():
        with pytest.raises(ValueError, match="closed"):
            getattr(archive, name)()
    for name in "decode_batch labels captions get_indices_batch get_packed_batch".split():
        with pytest.raises(ValueError, match="closed"):
            getattr(archive, name)([0])
    for name in "label caption".split():
        with pytest.raises(ValueError, match="closed"):
            getattr(archive, name)(0)
    with pytest.raises(ZeroDivisionError), kuat.KuatArchive(path) as archive:
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="closed"):
        archive.len()


def test_pickle_and_copy(archive, images, path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(archive, protocol))
        assert again.path == path
        assert_same(again.decode(2), images[2])
    for again in (copy.copy(archive), copy.deepcopy(archive)):
        assert again.path == path
        assert_same(again.decode(2), images[2])
    archive.close()
    assert len(pickle.loads(pickle.dumps(archive))) == SAMPLES


# Files that are no archives, or damaged ones.


def use(path):
    """Everything that reads a file."""
    with kuat.KuatArchive(path) as archive:
        count = len(archive)
        archive.info(), repr(archive), archive.classes
        report = archive.verify()
        ids = range(min(count, 20))
        uses = [
            lambda: archive.decode_batch(ids, device="cpu"), lambda: archive.get_indices_batch(ids), archive.all_labels,
            lambda: archive.get_packed_batch(ids), lambda: archive.captions(ids), archive.codebook_numpy,
        ]  # fmt: skip
        for use in uses:
            try:
                use()
            except (kuat.Error, ValueError):
                assert not report["ok"]
        return report


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.qvq"):
        kuat.KuatArchive(tmp_path / "missing.qvq")
    with pytest.raises(OSError):
        kuat.KuatArchive(tmp_path)
    with pytest.raises(OSError):
        kuat.KuatArchive("/dev/null/x.qvq")
    with pytest.raises((ValueError, OSError)):
        kuat.KuatArchive("nul\0.qvq")
    path = tmp_path / "file.qvq"
    random = np.random.default_rng(0)
    contents = [
        b"", b"\0", b"\0" * 8, b"\2\0\0\0\0\0\0\0{}", b"\xff" * 8, b"\xff" * 100, b"PK\3\4" * 100, b"{}" * 50,
        *(random.bytes(int(length)) for length in random.integers(0, 5000, 50)),
        # A header, as long as it says, of anything.
        *((len(header)).to_bytes(8, "little") + header for header in (random.bytes(n) for n in (1, 7, 100, 1000))),
        (2).to_bytes(8, "little") + b"[]", (4).to_bytes(8, "little") + b"null",
        (20_000).to_bytes(8, "little") + b"[" * 20_000, (60_000).to_bytes(8, "little") + b'{"a":' * 12_000,
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(kuat.Error, match="file.qvq"):
            kuat.KuatArchive(path)


def test_truncated_files(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.qvq"
    lengths = {*range(0, len(data), max(1, len(data) // 200)), *range(16), len(data) - 1}
    for content in [data[:length] for length in lengths] + [data + b"\0", data[:8] + data]:
        cut.write_bytes(content)
        with pytest.raises(kuat.Error):
            kuat.KuatArchive(cut)


@pytest.mark.parametrize("name", ["rgb", "grey", "overhanging"])
def test_one_wrong_byte(paths, tmp_path, name):
    data = paths[name].read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    random = np.random.default_rng(1)
    places = [*range(8), *random.integers(8, header, 150), *random.integers(header, len(data), 150)]
    damaged = tmp_path / "damaged.qvq"
    for place in places:
        content = bytearray(data)
        content[place] ^= int(random.integers(1, 256))
        damaged.write_bytes(content)
        try:
            report = use(damaged)
        except kuat.Error:
            continue
        assert not report["ok"], place


# DLPack.


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class Managed(ctypes.Structure):
    """DLManagedTensor"""

    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p))]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned"""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    ]  # fmt: skip


def contents(capsule):
    """What a capsule holds; a form is told by its name."""
    api = ctypes.pythonapi
    api.PyCapsule_IsValid.argtypes = api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    for name, form in ((b"dltensor", Managed), (b"dltensor_versioned", Versioned)):
        if api.PyCapsule_IsValid(capsule, name):
            pointer = api.PyCapsule_GetPointer(capsule, name)
            return form.from_address(pointer), pointer
    raise AssertionError(repr(capsule))


def address(array):
    return array.__array_interface__["data"][0]


def test_batch(archive, images):
    for output in outputs(3):
        batch = archive.decode_batch([1, 2], to="dlpack", device="cpu", **output)
        wanted = expected(images[[1, 2]], **output)
        assert type(batch) is kuat.Batch and batch.device == "cpu"
        assert batch.shape == wanted.shape and len(batch) == 2 and batch.dtype == output["dtype"]
        assert batch.nbytes == wanted.size * np.dtype(batch.dtype).itemsize
        assert repr(batch) == f'Batch(shape={batch.shape}, dtype={batch.dtype}, device="cpu")'
        for array in (batch.numpy(), np.asarray(batch), np.from_dlpack(batch)):
            assert_same(array, wanted, batch.dtype)
            assert address(array) == address(batch.numpy())
    with pytest.raises(TypeError):
        kuat.Batch()
    empty = archive.decode_batch([], to="dlpack")
    assert len(empty) == empty.nbytes == 0 and np.from_dlpack(empty).shape == (0, 24, 40, 3)


def test_batch_as_array(archive, images):
    batch = archive.decode_batch([1], to="dlpack")
    view = batch.__array__()
    assert address(view) == address(batch.__array__(copy=False)) == address(batch.__array__(np.uint8))
    copied = batch.__array__(copy=True)
    assert address(copied) != address(view)
    assert_same(copied, images[1:2])
    assert np.asarray(batch, np.int32).dtype == np.int32 and np.array(batch).shape == batch.shape
    with pytest.raises(ValueError, match="copy"):
        batch.__array__(np.float64, copy=False)
    # They are one memory.
    view[0, 0, 0] = 77
    assert np.from_dlpack(batch)[0, 0, 0].tolist() == batch.numpy()[0, 0, 0].tolist() == [77, 77, 77]


@pytest.mark.parametrize("dtype, code, bits", [("uint8", 1, 8), ("float16", 2, 16), ("float32", 2, 32)])
def test_capsules(archive, dtype, code, bits):
    batch = archive.decode_batch([1, 2], to="dlpack", dtype=dtype, layout="NCHW")
    assert batch.__dlpack_device__() == (1, 0)
    arguments = [{}, {"max_version": (0, 8)}, {"max_version": None}, {"stream": None, "dl_device": (1, 0)}]
    versions = [{"max_version": version} for version in ((1, 0), (1, 1), (2, 0))]
    for argument in arguments + versions:
        for copied in (None, False, True):
            capsule = batch.__dlpack__(**argument, copy=copied)
            held, _ = contents(capsule)
            assert isinstance(held, Versioned) == (argument in versions)
            tensor = held.tensor
            assert (tensor.device_type, tensor.device_id, tensor.ndim, tensor.byte_offset) == (1, 0, 4, 0)
            assert (tensor.code, tensor.bits, tensor.lanes) == (code, bits, 1)
            assert tensor.shape[:4] == [2, 3, 24, 40] and tensor.strides[:4] == [3 * 24 * 40, 24 * 40, 40, 1]
            assert (tensor.data == address(batch.numpy())) == (not copied)
            data = (ctypes.c_uint8 * batch.nbytes).from_address(tensor.data)
            assert bytes(data) == batch.numpy().tobytes()
            if argument in versions:
                assert (held.major, held.minor, held.flags) == (1, 0, 2 if copied else 0)


def test_capsules_that_are_refused(archive):
    batch = archive.decode_batch([0], to="dlpack")
    for stream in (0, 1, -1, "x"):
        with pytest.raises(BufferError, match="stream"):
            batch.__dlpack__(stream=stream)
    for device in ((2, 0), (1, 1), (13, 0)):
        with pytest.raises(BufferError, match="host memory"):
            batch.__dlpack__(dl_device=device)
    with pytest.raises(TypeError):
        batch.__dlpack__(None)
    with pytest.raises(TypeError):
        batch.__dlpack__(max_version="1.0")


def live():
    gc.collect()
    return live_memory()


def test_memory_lives_as_long_as_it_is_used(path, images):
    before = live()
    archive = kuat.KuatArchive(path)
    arrays = [archive.decode(0), archive.decode_batch([0]), archive.codebook, archive.codebook_numpy(),
              archive.get_indices_batch([0]), archive.get_packed_batch([0])]  # fmt: skip
    assert live() == before + len(arrays)
    arrays[1] = arrays[1][0, :, ::2]
    assert live() == before + len(arrays)
    del arrays
    assert live() == before

    batch = archive.decode_batch([1], to="dlpack")
    array = np.from_dlpack(batch)
    assert live() == before + 1
    archive.close()
    del batch, archive
    assert live() == before + 1
    assert_same(array, images[1:2])
    del array
    assert live() == before


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_live_as_long_as_they_are_used(archive, images, version):
    before = live()
    batch = archive.decode_batch([1], to="dlpack")
    capsules = [batch.__dlpack__(max_version=version) for _ in range(3)]
    assert live() == before + 1
    capsules.append(batch.__dlpack__(max_version=version, copy=True))
    assert live() == before + 2
    del batch
    assert live() == before + 2
    held, _ = contents(capsules[0])
    data = (ctypes.c_uint8 * images[1].size).from_address(held.tensor.data)
    assert bytes(data) == images[1].tobytes()
    # Nobody took these.
    del capsules[1:]
    assert live() == before + 1
    # A consumer renames what it takes and calls the deleter, on any thread.
    capsule, (held, pointer) = capsules[0], contents(capsules[0])
    api = ctypes.pythonapi
    api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = b"used_dltensor"
    assert api.PyCapsule_SetName(capsule, name) == 0
    del capsules, capsule
    assert live() == before + 1
    thread = threading.Thread(target=held.deleter, args=(pointer,))
    thread.start()
    thread.join()
    assert live() == before


def test_jax_takes_batches_without_a_copy(archive, images):
    if os.environ.get("KUAT_TEST_WITHOUT_JAX") == "1":
        pytest.skip("KUAT_TEST_WITHOUT_JAX is set")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    before = live()
    for output in outputs(3):
        batch = archive.decode_batch([1, 2], to="dlpack", **output)
        array = jax.dlpack.from_dlpack(batch)
        assert array.unsafe_buffer_pointer() == address(batch.numpy())
        del batch
        assert live() == before + 1
        assert_same(np.asarray(array), expected(images[[1, 2]], **output), output["dtype"])
        del array
        assert live() == before


def test_memory_is_used_again(archive):
    ids = list(range(SAMPLES)) * 50
    first = archive.decode_batch(ids)
    place = address(first)
    second = archive.decode_batch(ids)
    assert address(second) != place
    del first
    third = archive.decode_batch(ids)
    assert address(third) == place
    batch = archive.decode_batch(ids, to="dlpack")
    place, array = address(batch.numpy()), np.from_dlpack(batch)
    del batch
    fourth = archive.decode_batch(ids)
    assert address(fourth) != place
    del array
    assert address(archive.decode_batch(ids)) == place


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@LINUX
def test_memory_does_not_grow(archive):
    ids = list(range(SAMPLES)) * 40

    def use(count):
        for i in range(count):
            archive.decode_batch(ids, dtype="float32", device="cpu")
            np.from_dlpack(archive.decode_batch(ids, to="dlpack", device="cpu"))
            archive.decode_batch(ids, to="dlpack", device="cpu").__dlpack__()
            archive.get_indices_batch(ids), archive.captions(ids), archive.labels(ids), archive.decode(0)
            for batch in kuat.KuatDataset(archive, 4, shuffle=True, device="cpu") if i % 20 == 0 else ():
                del batch

    use(100)
    before = resident()
    use(1000)
    # A batch of each kind is 5 MB: none of the thousand may stay.
    assert resident() - before < 5_000_000


# Threads, processes, signals.


def test_threads_share_an_archive(archive, images, path):
    labels = parsed(path)[1]["labels"]
    end = time.monotonic() + 1
    failures = []

    def work(seed):
        random = np.random.default_rng(seed)
        try:
            while time.monotonic() < end:
                ids = random.integers(-SAMPLES, SAMPLES, random.integers(0, 20))
                device = "cpu" if seed % 4 else "auto"
                assert (
                    archive.decode_batch(ids, layout="NCHW", device=device) == expected(images[ids], layout="NCHW")
                ).all()
                assert (archive.labels(ids) == labels[ids]).all()
                assert (np.from_dlpack(archive.decode_batch(ids, to="dlpack")) == images[ids]).all()
                assert archive.captions(ids[:2]) == [archive.caption(i) for i in ids[:2]]
                with kuat.KuatArchive(path) as other:
                    assert (other.decode(1) == images[1]).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads) and not failures


def test_threads_close_an_archive_in_use(path, images):
    """Whoever is at work ends it; the others are told."""
    for _ in range(20):
        archive = kuat.KuatArchive(path)
        failures, started = [], threading.Barrier(5)

        def work(archive=archive, failures=failures, started=started):
            started.wait()
            try:
                while True:
                    assert (archive.decode_batch(range(SAMPLES)) == images).all()
            except ValueError as error:
                failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.005)
        archive.close()
        for thread in threads:
            thread.join(60)
        assert len(failures) == 4 and all("closed" in failure for failure in failures)


def test_number_of_threads(path):
    code = """
        import glob, sys, time, kuat
        archive = kuat.KuatArchive(sys.argv[1])
        kuat.set_num_threads(3)
        first = archive.decode_batch(range(9), device="cpu")
        # A thread names itself.
        time.sleep(0.5)
        names = [open(name).read() for name in glob.glob("/proc/self/task/*/comm")]
        print(sum(name.startswith("kuat-") for name in names))
        kuat.set_num_threads(1)
        assert (archive.decode_batch(range(9), device="cpu") == first).all()
        kuat.set_num_threads(0)
        assert (archive.decode_batch(range(9), device="cpu") == first).all()
    """
    found = run(code, path)
    if sys.platform.startswith("linux"):
        assert found == "3\n"
        code = code.replace("kuat.set_num_threads(3)", "")
        assert run(code, path, env={**os.environ, "RAYON_NUM_THREADS": "5"}) == "5\n"
    for wrong in (-1, 2**16):
        with pytest.raises(ValueError):
            kuat.set_num_threads(wrong)
    for wrong in ("1", 1.0, None):
        with pytest.raises(TypeError):
            kuat.set_num_threads(wrong)


FORKED = """
    import os, signal, sys
    signal.alarm(50)
    import numpy as np, kuat
    device = int(sys.argv[2]) if sys.argv[2].isdigit() else sys.argv[2]
    archive = kuat.KuatArchive(sys.argv[1])
    images = archive.decode_batch(range(9), device=device)
    kept = archive.decode_batch([1], device=device, to="dlpack")
    batches = archive._batches(2, device=device)
    epoch = kuat.KuatDataset(archive, 2, device=device).epoch()
    next(batches), next(epoch)
    dropped = archive._batches(2, device=device)
    child = os.fork()
    if child == 0:
        # A child does not inherit it.
        signal.alarm(40)
        try:
            assert (np.from_dlpack(kept) == images[1:2]).all()
            assert (archive.decode(3) == images[3]).all()
            assert (archive.decode_batch(range(9), device="cpu") == images).all()
            if isinstance(device, int):
                # A driver may hang.
                try:
                    archive.decode_batch(range(9), device=device)
                    raise AssertionError("a GPU of the parent's")
                except kuat.Error as error:
                    assert "forked" in str(error) and "spawn" in str(error)
                device = "auto"
                assert archive.device_name() == "cpu"
            assert (archive.decode_batch(range(9), device=device) == images).all()
            for iterator in (batches, epoch):
                try:
                    next(iterator)
                    raise AssertionError("batches of the parent's")
                except RuntimeError as error:
                    assert "forked child" in str(error)
            del dropped, kept
            found = [batch["images"] for batch in kuat.KuatDataset(archive, 2, device=device)]
            assert (np.concatenate(found) == images).all()
            archive.close()
            del batches, epoch, archive
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    # The parent goes on.
    assert len(list(batches)) == 4 and len(list(epoch)) == 4
    assert (archive.decode_batch(range(9), device=device) == images).all()
    print("done")
"""


FORKED_BEFORE = """
    import os, signal, sys
    signal.alarm(50)
    import kuat
    archive = kuat.KuatArchive(sys.argv[1])
    images = archive.decode_batch(range(9), device="cpu")
    kuat.devices()
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        device = int(sys.argv[2])
        os._exit(0 if (archive.decode_batch(range(9), device=device) == images).all() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    print("done")
"""


def test_an_interrupted_import_of_numpy_is_that_interrupt(path):
    code = """
        import sys, kuat
        class Interrupts:
            def find_spec(self, name, *_):
                if name == "numpy":
                    sys.meta_path.remove(self)
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupts())
        try:
            kuat.KuatArchive(sys.argv[1]).decode(0)
        except KeyboardInterrupt:
            print(kuat.KuatArchive(sys.argv[1]).decode(0).dtype)
    """
    assert run(code, path) == "uint8\n"


@pytest.mark.parametrize("device", ["cpu", *(device["index"] for device in DEVICES)])
def test_a_process_may_end_while_batches_are_made(path, device):
    # `run` checks that it does not crash.
    code = """
        import sys, kuat
        device = int(sys.argv[2]) if sys.argv[2].isdigit() else sys.argv[2]
        archive = kuat.KuatArchive(sys.argv[1])
        batches = archive._batches(1, device=device, ahead=100)
        next(batches)
        print("done")
    """
    assert run(code, path, device) == "done\n"


@UNIX
@pytest.mark.parametrize("device", [device["index"] for device in DEVICES])
def test_gpu_in_a_child_of_a_process_that_opened_none(path, device):
    assert run(FORKED_BEFORE, path, device) == "done\n"


@UNIX
@pytest.mark.parametrize("device", ["cpu", "auto", *(str(device["index"]) for device in DEVICES)])
def test_fork_after_decoding(path, device):
    assert run(FORKED, path, device) == "done\n"


WORKERS = """
    import multiprocessing, sys
    import kuat
    archive = kuat.KuatArchive(sys.argv[1])
    def work(ids):
        return archive.decode_batch(ids, device="cpu"), archive.labels(ids)
    def work_with(archive, ids):
        return archive.decode_batch(ids, device="cpu"), archive.labels(ids)
    if __name__ == "__main__":
        images, labels = work(range(9))
        context = multiprocessing.get_context(sys.argv[2])
        for start in range(3):
            with context.Pool(3) as pool:
                ids = [[i, i - 3] for i in range(9)]
                found = pool.map(work, ids) + pool.starmap(work_with, [(archive, i) for i in ids])
        for i, (some, theirs) in zip(ids + ids, found):
            assert (some == images[i]).all() and (theirs == labels[i]).all()
        print("done")
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=UNIX), pytest.param("forkserver", marks=UNIX)])
def test_worker_processes(path, tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(WORKERS))
    command = [sys.executable, script, path, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def long_archive(path, samples=2_000_000):
    """A file of many GB, of one codeword and indices of 0, that takes no room on a disk."""
    sides = {"image_width": 64, "image_height": 64, "channels": 1, "patch_width": 1, "patch_height": 1}
    metadata = {"format": "qvq", "version": 1, "codec": "vq", "index_bits": 8, "samples": samples, **sides}
    length = samples * 64 * 64
    header = {
        "__metadata__": {key: str(value) for key, value in metadata.items()},
        "indices": {"dtype": "U8", "shape": [samples, 64, 64], "data_offsets": [0, length]},
        "codebook": {"dtype": "U8", "shape": [1, 1, 1, 1], "data_offsets": [length, length + 1]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + length + 1)
    return path


INTERRUPTED = """
    import itertools, sys, time, kuat
    archive = kuat.KuatArchive(sys.argv[1])
    def ready(*_):
        print("ready", flush=True)
    def epochs():
        dataset = kuat.KuatDataset(archive, 3, shuffle=True)
        for number, batch in enumerate(batch for epoch in itertools.count() for batch in dataset.epoch(epoch)):
            if number == 20:
                ready()
    def epoch():
        for number, batch in enumerate(archive._batches(1, ahead=0)):
            if number == 20:
                ready()
    def verify():
        ready()
        archive.verify()
    def callback():
        archive.verify(progress=lambda *_: [ready(), time.sleep(60)])
    try:
        globals()[sys.argv[2]]()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
"""


@UNIX
@pytest.mark.parametrize("what", ["epochs", "epoch", "verify", "callback"])
def test_ctrl_c(path, what, tmp_path):
    if what in ("epoch", "verify"):
        # It takes seconds.
        path = long_archive(tmp_path / "long.qvq")
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), path, what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert output.endswith("interrupted\n") and error.rstrip().endswith("KeyboardInterrupt"), (output, error)
    assert process.returncode != 0 and time.monotonic() - start < 10


# GPUs.


@pytest.mark.skipif(bool(os.environ.get("KUAT_TEST_WITHOUT_GPU")), reason="KUAT_TEST_WITHOUT_GPU is set")
def test_there_is_a_gpu():
    assert DEVICES, "no adapter; KUAT_TEST_WITHOUT_GPU=1 does without"
    for index, device in enumerate(DEVICES):
        assert device["index"] == index and device["kind"] in ("discrete", "integrated", "virtual", "software", "other")
        assert device["name"] and device["api"] in ("vulkan", "gl", "metal", "dx12") and device["max_buffer_size"] > 0


@pytest.mark.parametrize("device", DEVICES, ids=[f"{device['index']} {device['name']}" for device in DEVICES])
def test_gpus_give_what_cpus_do(case, device):
    ids = [0, 8, 4, -2]
    index = device["index"]
    for output in outputs(case.images.shape[3]):
        batch = case.archive.decode_batch(ids, device=index, **output)
        assert_same(batch, expected(case.images[ids], **output), output["dtype"])
        name = batch.base.device
        assert device["name"] in name and device["api"] in name.lower() and name == case.archive.device_name(index)
    named = case.archive.decode_batch(ids, device=device["name"], to="dlpack")
    assert device["name"] in named.device
    assert_same(named.numpy(), case.images[ids])
    out = np.empty_like(case.images[:2])
    assert case.archive.decode_batch([3, 3], out, device=index) is out
    assert_same(out, case.images[[3, 3]])
    found = case.archive.get_indices_batch(ids)
    assert_same(case.archive.decode_indices(found, device=index), case.images[ids])
    assert case.archive.decode_batch([], device=index).shape == (0, *case.images.shape[1:])


def test_devices_by_name(archive):
    batch = archive.decode_batch([0], device="cpu")
    assert batch.base.device == archive.device_name("cpu") == "cpu"
    found = archive.device_name()
    assert archive.decode_batch([0]).base.device == archive.decode_batch([0], device="auto").base.device == found
    if all(device["kind"] == "software" for device in kuat.devices()):
        assert found == "cpu"
        with pytest.raises(kuat.Error, match="no"):
            archive.device_name("gpu")
    else:
        assert archive.device_name("gpu") == found != "cpu"
    for wrong in ("no such adapter", 1000):
        with pytest.raises(kuat.Error) as raised:
            archive.decode_batch([0], device=wrong)
        assert str(wrong) in str(raised.value)
        assert all(device["name"] in str(raised.value) for device in DEVICES)
    for wrong in (None, 1.5, -1, True, ["cpu"], b"cpu", np.zeros(2)):
        with pytest.raises(TypeError, match="device"):
            archive.decode_batch([0], device=wrong)
        with pytest.raises(TypeError, match="device"):
            archive.device_name(wrong)
    with pytest.raises(ValueError, match="device"):
        archive.decode_batch([0], device="")


# Epochs.


def test_dataset(case):
    dataset = kuat.KuatDataset(case.path, batch_size=4)
    assert len(dataset) == 3 and dataset.archive.path == case.path and dataset.batch_size == 4
    assert repr(dataset) == f"KuatDataset({dataset.archive!r}, batch_size=4)"
    for batches in (list(dataset), list(dataset.epoch(7)), list(dataset)):
        assert [len(batch["images"]) for batch in batches] == [4, 4, 1]
        assert all(set(batch) == {"images", "labels", "captions"} for batch in batches)
        assert_same(np.concatenate([batch["images"] for batch in batches]), case.images)
        np.testing.assert_array_equal(np.concatenate([batch["labels"] for batch in batches]), case.tensors["labels"])
        assert [caption for batch in batches for caption in batch["captions"]] == case.archive.captions(slice(None))
        assert all(batch["labels"].dtype == np.int64 for batch in batches)


def order(dataset, epoch=0):
    """The samples of an epoch, by their captions."""
    return [int(caption.split()[1]) for batch in dataset.epoch(epoch) for caption in batch["captions"]]


def test_shuffled_epochs(path):
    dataset = kuat.KuatDataset(path, 2, shuffle=True, seed=5)
    orders = [order(dataset, epoch) for epoch in range(6)]
    assert all(sorted(found) == list(range(SAMPLES)) for found in orders)
    assert len(set(map(tuple, orders))) == 6
    again = kuat.KuatDataset(kuat.KuatArchive(path), 2, shuffle=True, seed=5)
    assert [order(again, epoch) for epoch in range(6)] == orders
    # Batches are cut from one order.
    assert order(kuat.KuatDataset(path, 9, True, 5), 3) == orders[3]
    assert order(kuat.KuatDataset(path, 2, shuffle=True, seed=6)) != orders[0]
    # A position is as good as any for each sample.
    seen = np.array([order(kuat.KuatDataset(path, SAMPLES, True), epoch) for epoch in range(300)])
    counts = np.array([np.bincount(column, minlength=SAMPLES) for column in seen.T])
    assert counts.min() > 10 and counts.max() < 70


def test_last_batch(path, images):
    dataset = kuat.KuatDataset(path, 4, drop_last=True)
    assert len(dataset) == 2 and order(dataset) == list(range(8))
    dataset = kuat.KuatDataset(path, 4, shuffle=True, drop_last=True)
    assert len(set(order(dataset))) == 8
    assert len(kuat.KuatDataset(path, 3, drop_last=True)) == len(kuat.KuatDataset(path, 3)) == 3
    assert len(kuat.KuatDataset(path, 100)) == 1 and len(list(kuat.KuatDataset(path, 100))) == 1
    assert (
        len(kuat.KuatDataset(path, 100, drop_last=True)) == 0 == len(list(kuat.KuatDataset(path, 100, drop_last=True)))
    )


@pytest.mark.parametrize("device", ["auto", "cpu", *(device["index"] for device in DEVICES)])
def test_outputs_of_datasets(path, images, device):
    archive = kuat.KuatArchive(path)
    for output in outputs(3):
        dataset = kuat.KuatDataset(archive, 4, True, 1, device=device, **output)
        assert dataset.archive is archive
        for batch in dataset:
            ids = [int(caption.split()[1]) for caption in batch["captions"]]
            np.testing.assert_array_equal(batch["images"], archive.decode_batch(ids, device=device, **output))
            assert_same(batch["images"], expected(images[ids], **output), output["dtype"])
            assert batch["images"].base.device == archive.device_name(device)


def test_batches_that_are_kept_stay_as_they_are(path, images):
    before = live()
    batches = list(kuat.KuatDataset(path, 1).epoch())
    assert len({address(batch["images"]) for batch in batches}) == len(batches) == SAMPLES
    assert_same(np.concatenate([batch["images"] for batch in batches]), images)
    del batches
    assert live() == before
    # An epoch that is left early gives back what was made ahead.
    for _batch in kuat.KuatDataset(path, 1):
        break
    del _batch
    end = time.monotonic() + 10
    while live() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert live() == before


def test_datasets_without_captions(plain):
    (batch,) = kuat.KuatDataset(plain)
    assert batch["captions"] is None and batch["labels"].tolist() == [-1, -1, -1]


def test_datasets_that_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        kuat.KuatDataset(tmp_path / "missing.qvq")
    for wrong in ({"batch_size": 0}, {"layout": "HWC"}, {"dtype": "int8"}, {"mean": 0.5}, {"mean": 0.5, "std": 0.5}):
        with pytest.raises(ValueError):
            kuat.KuatDataset(path, **wrong)
    for wrong in ({"batch_size": "4"}, {"batch_size": 2.5}, {"device": 2.5}):
        with pytest.raises(TypeError):
            kuat.KuatDataset(path, **wrong)
    with pytest.raises(kuat.Error, match="no such adapter"):
        kuat.KuatDataset(path, device="no such adapter")
    with pytest.raises(ValueError):
        kuat.KuatDataset(path, -1)
    with pytest.raises(ValueError):
        kuat.KuatDataset(path, seed=-1)
    with pytest.raises(TypeError):
        kuat.KuatDataset(5)


# The package.


def test_importing_kuat_loads_little():
    code = """
        import sys, kuat
        print(*sorted({"numpy", "torch", "tqdm", "PIL", "typing"} & set(sys.modules)))
        with open("/proc/self/maps") as maps:
            print("libvulkan" in maps.read())
    """
    if sys.platform.startswith("linux"):
        assert run(code).splitlines() == ["", "False"]


@LINUX
def test_default_device_loads_no_gl(path):
    """Mesa's drivers for it make the symbols of their LLVM global, on which libraries with another one crash."""
    code = """
        import sys, kuat
        kuat.KuatArchive(sys.argv[1]).decode_batch([0])
        list(kuat.KuatDataset(sys.argv[1]))
        with open("/proc/self/maps") as maps:
            loaded = maps.read()
        print(any(name in loaded for name in ("libEGL", "swrast_dri", "libgallium")))
    """
    environment = {key: value for key, value in os.environ.items() if key != "WGPU_BACKEND"}
    assert run(code, path, env=environment) == "False\n"


def test_names():
    lazy = {"GPUDataset", "GPUDecoder"}
    assert set(dir(kuat)) == set(kuat.__all__) | lazy >= {"KuatArchive", "Batch", "__version__", "devices"}
    assert kuat.KuatArchive.__module__ == kuat.Batch.__module__ == kuat.Error.__module__ == "kuat"
    assert issubclass(kuat.Error, Exception)
    with pytest.raises(AttributeError, match="no attribute 'Archive'"):
        _ = kuat.Archive
    documented = [getattr(kuat, name) for name in kuat.__all__ if not name.startswith(("IMAGENET", "GPU", "__"))]
    for kind in (kuat.KuatArchive, kuat.Batch, kuat.KuatDataset):
        documented += [value for name, value in vars(kind).items() if not name.startswith("_")]
    assert all(value.__doc__ for value in documented)


def test_arguments_that_are_refused_say_what_they_are(case):
    archive = case.archive
    for index in (2**70, -(2**70)):
        for method in (archive.decode, archive.label, archive.caption):
            with pytest.raises(IndexError, match="does not exist"):
                method(index)
    for ids in ((True, False), [0, True], [np.False_, True]):
        with pytest.raises(TypeError, match="bool"):
            archive.labels(ids)
    with pytest.raises(TypeError, match="mean is half"):
        archive.decode_batch([0], dtype="float32", mean="half", std=1)
    with pytest.raises(TypeError, match="indices are int64, expected an array of uint32"):
        archive.decode_indices(archive.get_indices_batch([0]).astype(np.int64))
    with pytest.raises(ValueError, match="found -1"):
        kuat.KuatDataset(archive, seed=-1)


def test_iterating_goes_through_the_epochs(path):
    dataset = kuat.KuatDataset(path, 3, shuffle=True)
    found = [np.concatenate([batch["images"] for batch in dataset]) for _ in range(2)]
    for epoch, images in enumerate(found):
        assert (images == np.concatenate([batch["images"] for batch in dataset.epoch(epoch)])).all()
    assert (found[0] != found[1]).any()
