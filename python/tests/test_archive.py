"""Reading archives, checked by numpy alone."""

import copy
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import GEOMETRIES, SAMPLES, assert_same, expected, outputs
from oracle import assembled, indices, parsed

import kuat


def test_properties(case):
    (width, height), (q, p), channels, codewords, bits = GEOMETRIES[case.name]
    archive, grid = case.archive, (-(-height // p), -(-width // q))
    assert archive.len() == len(archive) == SAMPLES
    assert archive.codec == "vq" and archive.codebook_size == codewords and archive.index_bits == bits
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
    assert info["codec"] == "vq"
    assert info["codewords"] == len(tensors["codebook"])
    assert info["bytes_per_image"] == tensors["indices"][0].nbytes
    assert info["classes"] == ["a", "b", "c"] and info["metadata"] == metadata
    assert info["labels"] is info["captions"] is info["checksums"] is info["psnr"] is True
    assert info["ledger"]["mean_db"] == pytest.approx(tensors["psnr"].mean(), abs=1e-3)
    assert info["ledger"]["worst"][0]["sample"] == tensors["psnr"].argmin()
    assert sum(bar["samples"] for bar in info["ledger"]["histogram"]) == info["samples"]
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


def test_psnr_is_as_recorded(case):
    psnr = case.archive.psnr
    assert psnr.dtype == np.float32 and psnr.shape == (SAMPLES,)
    np.testing.assert_array_equal(psnr, case.tensors["psnr"])
    assert psnr.mean(dtype=np.float64) == pytest.approx(case.archive.info()["mean_psnr_db"], abs=1e-3)


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
    attributes = "codec codebook_size patch_size patch_shape dimensions grid_size grid_shape index_bits classes psnr"
    for name in (*attributes.split(), "codebook"):
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
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.qvq")  # Opening it would wait for whoever writes to it.
        for path in (tmp_path / "pipe.qvq", "/dev/zero"):
            for access in ("auto", "map", "read"):
                with pytest.raises(OSError, match="not a regular file"):
                    kuat.KuatArchive(path, access=access)
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
