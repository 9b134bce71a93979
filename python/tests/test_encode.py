"""kuat.encode and kuat.ArchiveWriter, checked by decoding with numpy alone."""

import gc
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from oracle import captions, decoded, parsed
from PIL import Image

import kuat

OPTIONS = dict(size=(32, 24), patch=4, codebook=64, progress=False)
KEYS = {
    "archive", "samples", "skipped", "classes", "codec", "patch", "codewords", "codebook_bytes", "max_error",
    "uniform_cells", "device",
    "index_bits", "bytes_per_image", "file_len", "mean_psnr_db", "min_psnr_db", "pooled_psnr_db", "resumed",
    "sampling_seconds", "training_seconds", "encoding_seconds",
    "images_per_second",
}  # fmt: skip


def pictures(count=10, height=30, width=40, channels=3, seed=5):
    """Smooth random images."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 5, 6, channels), dtype=np.uint8)
    resized = [
        np.stack(
            [
                np.asarray(Image.fromarray(image[..., c]).resize((width, height), Image.BICUBIC))
                for c in range(channels)
            ],
            -1,
        )
        for image in small
    ]
    return np.stack(resized)


IMAGES = pictures()
LABELS = [0] * 4 + [1] * 6


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for i, (image, label) in enumerate(zip(IMAGES, LABELS)):
        path = root / ["cat", "dog"][label] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def paths(folder):
    return sorted(folder.glob("*/*.png"))


class Indexed:
    """A data set as torchvision's are."""

    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if not isinstance(index, int):
            raise TypeError(index)
        return self.items[index]


def archive_of(source, path, **options):
    kuat.encode(source, path, **{**OPTIONS, **options})
    return path.read_bytes()


def exact(source, path, **options):
    """The images that an archive of enough codewords gives back, without resizing."""
    options = {"size": (40, 30), "codebook": 65_536, "progress": False, **options}
    summary = kuat.encode(source, path, **options)
    assert summary["mean_psnr_db"] == 100
    return decoded(path)


def test_archives_of_a_quality_or_a_size(folder, tmp_path):
    options = dict(size=(32, 24), progress=False)
    reached = kuat.encode(folder, tmp_path / "a.qvq", psnr=30, **options)
    assert 30 <= reached["mean_psnr_db"] < 100
    fitting = kuat.encode(list(zip(IMAGES, LABELS)), tmp_path / "b.qvq", target_bytes=14_000, **options)
    assert (tmp_path / "b.qvq").stat().st_size == fitting["file_len"] <= 14_000
    assert kuat.encode(folder, tmp_path / "c.qvq", psnr=20, patch=(4, 2), **options)["patch"] == [4, 2]
    with pytest.raises(kuat.Error, match="1000 bytes cannot be had; the nearest was"):
        kuat.encode(folder, tmp_path / "d.qvq", target_bytes=1000, **options)
    with pytest.raises(ValueError, match="codebook and psnr are given"):
        kuat.encode(folder, tmp_path / "d.qvq", codebook=16, psnr=30, **options)


def test_a_codebook_brings_the_sizes_of_its_archive(folder, tmp_path):
    kuat.encode(folder, tmp_path / "a.qvq", size=(33, 24), patch=(4, 2), codebook=32, channels=1, progress=False)
    archive = kuat.KuatArchive(tmp_path / "a.qvq")
    kuat.encode(folder, tmp_path / "b.qvq", codebook=archive, progress=False)
    again = kuat.KuatArchive(tmp_path / "b.qvq")
    assert again.dimensions == archive.dimensions == (1, 24, 33)
    assert again.patch_shape == archive.patch_shape == (2, 4)
    assert np.array_equal(again.codebook, archive.codebook)


def test_resume_begins_where_there_is_nothing_to_go_on_with(folder, tmp_path):
    kuat.encode(folder, tmp_path / "a.qvq", **OPTIONS)
    assert kuat.encode(folder, tmp_path / "b.qvq", resume=True, **OPTIONS)["resumed"] == 0
    assert (tmp_path / "a.qvq").read_bytes() == (tmp_path / "b.qvq").read_bytes()
    with pytest.raises(ValueError, match="read only once"):
        kuat.encode(iter(pictures()), tmp_path / "c.qvq", resume=True, **OPTIONS)


def test_importing_kuat_imports_nothing_heavy():
    code = "import sys, kuat; print(*sorted({'numpy', 'tqdm', 'PIL', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_every_kind_of_source_makes_the_same_archive(folder, tmp_path):
    out = tmp_path / "out.qvq"
    expected = archive_of(folder, out)
    classes = ["cat", "dog"]
    files = paths(folder)
    sources = {
        "str": lambda: str(folder),
        "paths": lambda: Indexed(list(zip(files, LABELS)), classes=classes),
        "names": lambda: Indexed([(str(file), label) for file, label in zip(files, LABELS)], classes=classes),
        "pillow": lambda: Indexed([(Image.open(file), label) for file, label in zip(files, LABELS)], classes=classes),
        "arrays": lambda: Indexed(list(zip(IMAGES, map(np.int64, LABELS))), classes=tuple(classes)),
        "floats": lambda: Indexed([(image / 255, label) for image, label in zip(IMAGES, LABELS)], classes=classes),
        "float16": lambda: Indexed(list(zip((IMAGES / 255).astype(np.float16), LABELS)), classes=classes),
        "strided": lambda: Indexed(list(zip(IMAGES[..., ::-1].copy()[..., ::-1], LABELS)), classes=classes),
    }
    for name, source in sources.items():
        assert archive_of(source(), out) == expected, name
        if name != "str":
            assert archive_of(iter(list(source())), out, classes=classes) == expected, name
    assert archive_of(zip(IMAGES, LABELS), out, classes=classes) == expected
    assert (
        archive_of(({"img": image, "cls": label} for image, label in zip(IMAGES, LABELS)), out, classes=classes)
        == expected
    )
    writer = kuat.ArchiveWriter(out, classes=classes, **OPTIONS)
    for image, label in zip(IMAGES, LABELS):
        writer.add(image, label)
    assert len(writer) == 10
    writer.close()
    assert out.read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["images", "out.qvq"]


def test_the_archive_is_what_the_summary_says(folder, tmp_path):
    out = tmp_path / "out.qvq"
    summary = kuat.encode(folder, out, **OPTIONS)
    assert set(summary) == KEYS
    assert Path(summary["archive"]) == out
    assert (summary["samples"], summary["codewords"], summary["index_bits"], summary["skipped"]) == (10, 64, 6, [])
    assert summary["classes"] == ["cat", "dog"] and summary["file_len"] == out.stat().st_size
    metadata, tensors = parsed(out)
    assert json.loads(metadata["classes"]) == ["cat", "dog"]
    assert tensors["labels"].tolist() == LABELS
    resized = np.stack([np.asarray(crop(Image.fromarray(image))) for image in IMAGES]).astype(float)
    errors = ((decoded(out) - resized) ** 2).mean((1, 2, 3))
    # Pillow and kuat round differently now and then when they resize.
    assert np.abs((10 * np.log10(255**2 / errors)).mean() - summary["mean_psnr_db"]) < 0.05
    assert summary["mean_psnr_db"] > 18


def crop(image):
    from PIL import ImageOps

    return ImageOps.fit(image, (32, 24), Image.BILINEAR)


def test_the_command_says_the_same(folder, tmp_path):
    out = tmp_path / "out.qvq"
    mine, archive = kuat.encode(folder, out, **OPTIONS), out.read_bytes()
    arguments = ["--size=32x24", "--patch=4", "--codebook=64", "--json"]
    command = [sys.executable, "-m", "kuat", "encode", str(folder), "--output", str(out), *arguments]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert set(mine) == set(theirs) and out.read_bytes() == archive
    for key in KEYS:
        if "second" not in key:
            assert mine[key] == theirs[key], key


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_without_resizing_and_with_enough_codewords_come_back(channels, tmp_path):
    images = pictures(3, channels=channels)
    given = images[..., 0] if channels == 1 else images
    assert np.array_equal(exact(given, tmp_path / "out.qvq", channels=channels), images)
    assert "labels" not in parsed(tmp_path / "out.qvq")[1]


def test_channels_are_converted(tmp_path):
    out = tmp_path / "out.qvq"
    grey = pictures(2, channels=1)
    for given in (grey, grey[..., 0], np.concatenate([grey, grey], -1)):
        assert np.array_equal(exact(given, out), np.repeat(grey, 3, -1))
    both = np.concatenate([grey, 255 - grey], -1)
    assert np.array_equal(exact(both, out, channels=4), np.concatenate([grey, grey, grey, 255 - grey], -1))
    luma = [np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in IMAGES[:2]]
    assert np.array_equal(exact(IMAGES[:2], out, channels=1), luma)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("channels", [3, 4])
def test_modes_of_pillow(mode, channels, tmp_path):
    base = Image.fromarray(IMAGES[0])
    if mode == "PA":
        image = base.convert("P").convert("PA")
    else:
        image = base.convert(mode)
    expected = np.asarray(image.convert("RGB" if channels == 3 else "RGBA"))
    assert np.array_equal(exact([image], tmp_path / "out.qvq", channels=channels)[0], expected)


def test_sixteen_bits_keep_the_upper_byte_as_files_do(tmp_path):
    values = IMAGES[0, ..., 0].astype(np.uint16) << 8 | 0x7F
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    out = tmp_path / "out.qvq"
    expected = IMAGES[0, ..., :1]
    assert np.array_equal(exact([path], out, channels=1)[0], expected)
    assert np.array_equal(exact([Image.open(path)], out, channels=1)[0], expected)
    assert np.array_equal(exact([Image.fromarray(values.astype(np.int32))], out, channels=1)[0], expected)
    with pytest.raises(ValueError, match="item 0 .* holds 70000 to 70000"):
        kuat.encode([Image.fromarray(np.full((8, 8), 70_000, np.int32))], out, **OPTIONS)
    with pytest.raises(TypeError, match="mode F"):
        kuat.encode([Image.fromarray(np.zeros((8, 8), np.float32))], out, **OPTIONS)


def test_transparency_and_orientation_are_those_of_files(tmp_path):
    palette = Image.fromarray(IMAGES[0]).convert("P")
    files = {"palette.png": dict(transparency=3), "colour.png": dict(transparency=tuple(map(int, IMAGES[0, 0, 0])))}
    for name, options in files.items():
        (palette if "palette" in name else Image.fromarray(IMAGES[0])).save(tmp_path / name, **options)
        for channels in (1, 3, 4):
            path, out = tmp_path / name, tmp_path / "out.qvq"
            by_path = exact([path], out, channels=channels)
            assert np.array_equal(by_path, exact([Image.open(path)], out, channels=channels)), (name, channels)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(turned, "png", exif=exif)
    turned = exact([Image.open(turned)], tmp_path / "out.qvq", size=(30, 40))
    assert np.array_equal(turned[0], np.rot90(IMAGES[0], -1))


def test_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    expected = IMAGES
    # Works where torch was built for another numpy, too.
    last = torch.from_dlpack(IMAGES.copy())
    first = last.permute(0, 3, 1, 2)
    out = tmp_path / "out.qvq"
    for tensor in (first, first.contiguous(), first.float() / 255, first.double() / 255, (first.float() / 255).half()):
        assert np.array_equal(exact(tensor, out), expected)
    assert np.array_equal(exact(iter(first), out), expected)
    gradient = (first.float() / 255).requires_grad_()
    assert np.array_equal(exact(gradient, out), expected)
    assert np.array_equal(exact(first[:, 0], out, channels=1)[..., 0], expected[..., 0])
    assert exact((first[:1].float() / 255).bfloat16(), out).shape == (1, 30, 40, 3)

    items = [(image, torch.tensor(label)) for image, label in zip(first, LABELS)]
    kuat.encode(items, out, **OPTIONS)
    assert parsed(out)[1]["labels"].tolist() == LABELS
    loader = torch.utils.data.DataLoader(items, batch_size=None)
    by_loader = archive_of(loader, out)
    assert by_loader == archive_of(items, out)

    class Stream(torch.utils.data.IterableDataset):
        def __len__(self):
            return len(items)

        def __iter__(self):
            return iter(items)

    assert archive_of(Stream(), out) == by_loader
    with pytest.raises(
        ValueError, match=r"item 0 is a tensor of the shape \(30, 40, 3\), expected .* before the sides"
    ):
        kuat.encode(last, out, **OPTIONS)
    with pytest.raises(TypeError, match="torch.int64"):
        kuat.encode(first.long(), out, **OPTIONS)
    with pytest.raises(ValueError, match="floats from -1.0"):
        kuat.encode(first.float() / 127.5 - 1, out, **OPTIONS)


def test_labels_captions_and_classes(tmp_path):
    out = tmp_path / "out.qvq"

    class ClassLabel:
        names = ["cat", "dog"]

    rows = [{"image": image, "label": label, "text": f"é {i}"} for i, (image, label) in enumerate(zip(IMAGES, LABELS))]
    hugging = Indexed(rows, features={"image": object(), "label": ClassLabel()})
    summary = kuat.encode(hugging, out, **OPTIONS)
    assert summary["classes"] == ["cat", "dog"]
    assert parsed(out)[1]["labels"].tolist() == LABELS
    assert captions(out) == [f"é {i}" for i in range(10)]

    assert kuat.encode(hugging, out, classes=["a", "b", "c"], **OPTIONS)["classes"] == ["a", "b", "c"]
    imagenet = Indexed([(image, 1) for image in IMAGES], classes=[("tench", "Tinca"), ("goldfish",)])
    assert kuat.encode(imagenet, out, **OPTIONS)["classes"] == ["tench, Tinca", "goldfish"]
    unlabelled = Indexed(list(IMAGES), classes=["a"])
    assert kuat.encode(unlabelled, out, **OPTIONS)["classes"] is None
    assert "labels" not in parsed(out)[1]

    items = [(IMAGES[0], 3, "one"), (IMAGES[1],), (IMAGES[2], None, None), IMAGES[3]]
    for source in (items, iter(items)):
        kuat.encode(source, out, **OPTIONS)
        assert parsed(out)[1]["labels"].tolist() == [3, -1, -1, -1]
        assert captions(out) == ["one", "", "", ""]
    kuat.encode([(IMAGES[0], None, "x")], out, **OPTIONS)
    assert "labels" not in parsed(out)[1] and captions(out) == ["x"]


def test_classes_of_folders_can_be_renamed(folder, tmp_path):
    out = tmp_path / "out.qvq"
    assert kuat.encode(folder, out, classes=["Katze", "Hund"], **OPTIONS)["classes"] == ["Katze", "Hund"]
    with pytest.raises(ValueError, match="classes is 1 names, expected 2"):
        kuat.encode(folder, out, classes=["Katze"], **OPTIONS)


def test_a_codebook_can_be_given(tmp_path):
    first, second = tmp_path / "first.qvq", tmp_path / "second.qvq"
    trained = kuat.encode(IMAGES, first, **OPTIONS)
    codebook = parsed(first)[1]["codebook"]

    class Archive:
        pass

    Archive.codebook = codebook
    for given in (codebook, np.asfortranarray(codebook), Archive()):
        stages = set()
        options = {**OPTIONS, "codebook": given, "progress": lambda stage, done, total, to=stages: to.add(stage)}
        summary = kuat.encode(IMAGES, second, **options)
        assert stages == {"encoding"} and summary["mean_psnr_db"] == trained["mean_psnr_db"]
        assert np.array_equal(parsed(second)[1]["codebook"], codebook)
        assert np.array_equal(decoded(second), decoded(first))
    with kuat.ArchiveWriter(second, **{**OPTIONS, "codebook": codebook[:3]}) as writer:
        writer.add(IMAGES[0])
    assert writer.summary["codewords"] == 3


@pytest.mark.parametrize("bound", [0, 8])
def test_a_bound_holds(tmp_path, bound):
    out = tmp_path / "out.qvq"
    options = {**OPTIONS, "size": (40, 30)}
    del options["codebook"]
    summary = kuat.encode(IMAGES, out, max_error=bound, **options)
    assert summary["max_error"] == bound == kuat.KuatArchive(out).info()["max_error"]
    assert summary["codewords"] <= summary["uniform_cells"]
    assert np.abs(decoded(out).astype(int) - np.stack(IMAGES)).max() <= bound
    with kuat.ArchiveWriter(out, max_error=bound, **options) as writer:
        for image in IMAGES:
            writer.add(image)
    assert writer.summary["codewords"] == summary["codewords"]
    for error, wrong in [(ValueError, 256), (ValueError, -1), (TypeError, 1.5), (TypeError, "8")]:
        with pytest.raises(error, match="max_error"):
            kuat.encode(IMAGES, out, max_error=wrong, **options)
    with pytest.raises(ValueError, match="codebook and max_error"):
        kuat.encode(IMAGES, out, max_error=bound, **OPTIONS)


ITEMS = [
    (lambda: [(IMAGES[0], "cat")], TypeError, "the label of item 0 is of type str, expected an int"),
    (lambda: [(IMAGES[0], 1.5)], TypeError, "the label of item 0 is of type float"),
    (lambda: [(IMAGES[0], 1 << 63)], ValueError, "the label of item 0 is 9223372036854775808"),
    (lambda: [(IMAGES[0], 0, 5)], TypeError, "the caption of item 0 is of type int"),
    (lambda: [IMAGES[0], (IMAGES[1], 4)], ValueError, "item 1 has a label, but the first item has none"),
    (lambda: [IMAGES[0], (IMAGES[1], None, "x")], ValueError, "item 1 has a caption, but the first"),
    (lambda: [(IMAGES[0], 1, "x", 2)], ValueError, "item 0 has 4 parts"),
    (lambda: [()], ValueError, "item 0 has 0 parts"),
    (lambda: [{"picture": 1, "label": 2}], ValueError, "item 0 has the keys 'picture', 'label', expected one of image"),
    (lambda: [IMAGES[0], None], TypeError, "the image of item 1 is of type NoneType, expected a PIL image"),
    (lambda: [b"\xff\xd8"], TypeError, "the image of item 0 is of type bytes"),
    (lambda: [IMAGES[0].astype(np.int64)], TypeError, "the image of item 0 holds int64, expected uint8"),
    (lambda: [IMAGES[0] > 3], TypeError, "holds bool"),
    (lambda: [IMAGES[0].astype(float)], ValueError, "holds floats from .* expected 0 to 1"),
    (lambda: [np.full((4, 4), np.nan)], ValueError, "floats from nan"),
    (lambda: [np.zeros((3, 30, 40), np.uint8)], ValueError, r"shape \(3, 30, 40\), expected height x width"),
    (lambda: [np.zeros((0, 3, 3), np.uint8)], ValueError, r"shape \(0, 3, 3\)"),
    (lambda: [np.zeros(5, np.uint8)], ValueError, r"shape \(5,\)"),
    (lambda: [(np.zeros((2, 2), object), 1)], TypeError, "holds object"),
]


@pytest.mark.parametrize("source, kind, message", ITEMS)
@pytest.mark.parametrize("once", [False, True])
def test_items_that_cannot_be_used_say_which_and_why(source, kind, message, once, tmp_path):
    source = source()
    with pytest.raises(kind, match=message):
        kuat.encode(iter(source) if once else source, tmp_path / "out.qvq", **OPTIONS)
    assert not os.listdir(tmp_path)


ARGUMENTS = [
    (dict(size=0), ValueError, "size is 0x0, expected at least one pixel"),
    (dict(size=-1), ValueError, "size is -1"),
    (dict(size=1 << 40), ValueError, "size is 1099511627776"),
    (dict(size="large"), TypeError, "size is 'large', expected an int"),
    (dict(size=2.5), TypeError, "size is 2.5"),
    (dict(size=(1, 2, 3)), ValueError, r"size is \(1, 2, 3\)"),
    (dict(patch=17), ValueError, "17"),
    (dict(patch=(4, None)), TypeError, "patch is None"),
    (dict(codebook="large"), TypeError, "codebook is 'large', expected an int, an archive or an array of uint8"),
    (dict(codebook=np.zeros((2, 4, 4, 3))), TypeError, "codebook holds float64"),
    (dict(codebook=np.zeros((2, 4, 3, 3), np.uint8)), ValueError, r"shape \[2, 4, 3, 3\], expected \[any, 4, 4, 3\]"),
    (dict(codebook=np.zeros((0, 4, 4, 3), np.uint8)), ValueError, "codebook is 0 bytes"),
    (dict(codebook=np.zeros(48, np.uint8)), ValueError, r"shape \[48\]"),
    (dict(codebook=0), ValueError, "codewords is 0"),
    (dict(codebook=1 << 26), ValueError, "codewords is 67108864"),
    (dict(channels=2), ValueError, "channels"),
    (dict(fit="squash"), ValueError, "fit is squash, expected crop, stretch or pad"),
    (dict(fit=None), TypeError, "fit is None, expected a str"),
    (dict(on_error=True), TypeError, "on_error is True, expected a str"),
    (dict(seed=-1), ValueError, "seed is -1"),
    (dict(on_error="ignore"), ValueError, "on error is ignore, expected fail or skip"),
    (dict(classes="cat"), TypeError, "classes is 'cat', expected a list of str"),
    (dict(classes=["a", 1]), TypeError, "classes is"),
    (dict(classes=5), TypeError, "classes is 5"),
    (dict(classes=["a"]), ValueError, "classes are given, but item 0, the first, has no label"),
    (dict(progress="yes"), TypeError, "progress is 'yes', expected True, False or a callable"),
]


@pytest.mark.parametrize("arguments, kind, message", ARGUMENTS)
def test_arguments_are_checked(arguments, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        kuat.encode(IMAGES, tmp_path / "out.qvq", **{**OPTIONS, **arguments})
    with (
        pytest.raises(kind, match=message),
        kuat.ArchiveWriter(tmp_path / "out.qvq", **{**OPTIONS, **arguments}) as writer,
    ):
        writer.add(IMAGES[0])
    assert not os.listdir(tmp_path)


def test_sources_and_paths_are_checked(folder, tmp_path):
    out = tmp_path / "out.qvq"
    for source in (5, None, {"train": IMAGES}, object()):
        with pytest.raises(TypeError, match="source is a"):
            kuat.encode(source, out, **OPTIONS)
    for source in ([], iter([]), np.zeros((0, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="no images"):
            kuat.encode(source, out, **OPTIONS)
    with pytest.raises(FileNotFoundError):
        kuat.encode(tmp_path / "no", out, **OPTIONS)
    for source in (folder, IMAGES, iter(IMAGES)):
        with pytest.raises(FileNotFoundError):
            kuat.encode(source, tmp_path / "no" / "out.qvq", **OPTIONS)
        with pytest.raises(OSError, match="not a regular file"):
            kuat.encode(source, folder, **OPTIONS)
    with pytest.raises(ValueError, match="the label of item 0 is 7, expected 0 to 1, as there are 2 classes"):
        kuat.encode([(IMAGES[0], 7)], out, classes=["a", "b"], **OPTIONS)
    assert os.listdir(tmp_path) == ["images"]


def test_what_cannot_be_read_fails_or_is_listed(tmp_path):
    out = tmp_path / "out.qvq"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")

    class Source(Indexed):
        def __getitem__(self, index):
            if index == 6:
                raise RuntimeError("the disk is tired")
            return super().__getitem__(index)

    items = [(None, 0), *zip(IMAGES, LABELS)]
    items[2] = (str(broken), 1)
    with pytest.raises(kuat.Error, match="cannot decode .*broken.jpg"):
        kuat.encode(items[1:], out, **OPTIONS)
    with pytest.raises(kuat.Error, match="cannot decode .*broken.jpg"):
        kuat.encode(iter(items[1:]), out, **OPTIONS)
    assert not out.exists()

    summary = kuat.encode(Source(items), out, on_error="skip", **OPTIONS)
    assert [skipped["name"] for skipped in summary["skipped"]] == ["item 0", "item 2", "item 6"]
    reasons = [skipped["reason"] for skipped in summary["skipped"]]
    assert "TypeError: the image of item 0 is of type NoneType" in reasons[0]
    assert "broken.jpg" in reasons[1] and "RuntimeError: the disk is tired" in reasons[2]
    assert summary["samples"] == 8 and len(parsed(out)[1]["labels"]) == 8

    summary = kuat.encode(iter(items), out, on_error="skip", **OPTIONS)
    assert [skipped["name"] for skipped in summary["skipped"]] == ["item 0", "item 2"]
    assert "TypeError: the image of item 0" in summary["skipped"][0]["reason"]
    assert summary["samples"] == 9
    out.unlink()
    for nothing in ([None, str(broken)], iter([str(broken), None])):
        with pytest.raises(kuat.Error, match="none of the 2 images could be decoded; the first problem"):
            kuat.encode(nothing, out, on_error="skip", **OPTIONS)
    assert not out.exists()


class Odd(Exception):
    pass


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_exceptions_of_the_source_come_out_as_they_are(on_error, tmp_path):
    odd = Odd("mine")

    class Source(Indexed):
        kind = odd

        def __getitem__(self, index):
            if index == 3:
                self.fail_deep_inside()
            return super().__getitem__(index)

        def fail_deep_inside(self):
            raise self.kind

    source = Source(IMAGES)
    if on_error == "fail":
        with pytest.raises(Odd) as caught:
            kuat.encode(source, tmp_path / "out.qvq", **OPTIONS)
        assert caught.value is odd
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["__getitem__", "fail_deep_inside"]
    # Not an Exception: never skipped.
    source.kind = KeyboardInterrupt("now")
    with pytest.raises(KeyboardInterrupt) as caught:
        kuat.encode(source, tmp_path / "out.qvq", on_error=on_error, **OPTIONS)
    assert caught.value is source.kind

    def generator():
        yield IMAGES[0]
        raise odd

    with pytest.raises(Odd) as caught:
        kuat.encode(generator(), tmp_path / "out.qvq", on_error=on_error, **OPTIONS)
    assert caught.value is odd
    assert not os.listdir(tmp_path)


def test_the_source_is_read_on_the_thread_that_called(tmp_path):
    import threading

    threads = set()

    class Source(Indexed):
        def __getitem__(self, index):
            threads.add(threading.get_ident())
            # A source may use kuat itself.
            if index == 2:
                kuat.encode(IMAGES[:2], tmp_path / "inner.qvq", **OPTIONS)
            return super().__getitem__(index)

    assert archive_of(Source(IMAGES), tmp_path / "out.qvq") == archive_of(IMAGES, tmp_path / "out.qvq")
    assert threads == {threading.get_ident()}


def test_progress(folder, tmp_path, capfd):
    out = tmp_path / "out.qvq"
    for source in (folder, list(zip(IMAGES, LABELS)), zip(IMAGES, LABELS)):
        calls = []

        def callback(*call, calls=calls):
            calls.append(call)

        kuat.encode(source, out, **{**OPTIONS, "progress": callback})
        stages = list(dict.fromkeys(stage for stage, _, _ in calls))
        reading = ["reading"] if isinstance(source, zip) else []
        assert stages == reading + ["sampling", "training", "encoding"]
        for stage in stages[len(reading) :]:
            of_stage = [call[1:] for call in calls if call[0] == stage]
            assert of_stage == sorted(of_stage) and of_stage[-1][0] == of_stage[-1][1] > 0
    assert "sampling" not in capfd.readouterr().err
    kuat.encode(folder, out, **{**OPTIONS, "progress": True})
    shown = capfd.readouterr().err
    assert all(stage in shown for stage in ("sampling", "training", "encoding")) and "10.0/10.0" in shown


def test_exceptions_of_the_callback_end_the_work(tmp_path):
    def callback(stage, done, total):
        raise Odd(stage)

    images = pictures(200, 64, 64)
    for source in (images, iter(images)):
        with pytest.raises(Odd):
            kuat.encode(source, tmp_path / "out.qvq", size=64, codebook=20_000, progress=callback)
        assert not os.listdir(tmp_path)


INTERRUPTED = """
    import sys, numpy as np, kuat
    images = np.random.default_rng(0).integers(0, 256, (400, 96, 96, 3), dtype=np.uint8)
    source = {"index": images, "once": iter(images), "folder": sys.argv[2]}[sys.argv[1]]
    def callback(stage, done, total):
        if stage == sys.argv[4]:
            print(stage, flush=True)
    try:
        kuat.encode(source, sys.argv[3], size=256, codebook=30_000, progress=callback)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("kind, stage", [("index", "sampling"), ("once", "training"), ("folder", "training")])
def test_ctrl_c_ends_the_work_and_leaves_nothing(kind, stage, folder, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "cat" / f"noise{i}.png")
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), kind, str(folder), str(target / "out.qvq"), stage]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"{stage}\n"
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert "interrupted\n" in output and error.rstrip().endswith("KeyboardInterrupt"), (output, error)
    assert process.returncode != 0 and time.monotonic() - start < 20
    assert not os.listdir(target)


def test_writer_in_a_with_statement(tmp_path):
    out = tmp_path / "out.qvq"
    with kuat.ArchiveWriter(out, **OPTIONS) as writer:
        for image in IMAGES:
            writer.add(image, label=5, caption="x")
        assert len(writer) == 10 and writer.summary is None and not out.exists()
    assert set(writer.summary) == KEYS and writer.summary["samples"] == 10
    assert writer.close() is writer.summary
    assert parsed(out)[1]["labels"].tolist() == [5] * 10
    with pytest.raises(ValueError, match="closed or discarded"):
        writer.add(IMAGES[0], 5)
    out.unlink()

    with pytest.raises(Odd), kuat.ArchiveWriter(out, **OPTIONS) as writer:
        writer.add(IMAGES[0])
        raise Odd
    assert writer.summary is None and not os.listdir(tmp_path)
    with pytest.raises(ValueError, match="closed or discarded"):
        writer.close()

    writer = kuat.ArchiveWriter(out, **OPTIONS)
    writer.add(IMAGES[0])
    writer.discard()
    writer.discard()
    with pytest.raises(ValueError, match="no images"), kuat.ArchiveWriter(out, **OPTIONS):
        pass
    kuat.ArchiveWriter(out, **OPTIONS).add(IMAGES[0])
    gc.collect()
    assert not os.listdir(tmp_path)


def test_writer_skips_what_it_is_told_to(tmp_path):
    out = tmp_path / "out.qvq"
    with kuat.ArchiveWriter(out, on_error="skip", **OPTIONS) as writer:
        writer.add("no such file.png")
        writer.add(IMAGES[0])
        writer.add([1, 2, 3])
    assert [skipped["name"] for skipped in writer.summary["skipped"]] == ["item 0", "item 2"]
    assert writer.summary["samples"] == 1
    writer = kuat.ArchiveWriter(out, **OPTIONS)
    with pytest.raises(FileNotFoundError, match="no such file.png"):
        writer.add("no such file.png")
    writer.add(IMAGES[0])
    assert writer.close()["samples"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_cannot_write_to_its_parents_archive(tmp_path):
    out = tmp_path / "out.qvq"
    writer = kuat.ArchiveWriter(out, **OPTIONS)
    writer.add(IMAGES[0])
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        problems = 0
        for use in (lambda: writer.add(IMAGES[1]), lambda: len(writer), writer.close, writer.discard):
            try:
                use()
            except RuntimeError as error:
                problems += "stays with its process" in str(error)
        os._exit(problems)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 4
    assert writer.close()["samples"] == 1


def test_a_writer_may_be_discarded_within_its_block(tmp_path):
    with kuat.ArchiveWriter(tmp_path / "out.qvq", **OPTIONS) as writer:
        writer.add(IMAGES[0])
        writer.discard()
    assert writer.summary is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_batches_of_cifar_pickled_by_this_python(protocol, tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    batch = {"fine_labels": [99, 0, 7], "data": data.reshape(3, -1), "filenames": ["a", "b", "c"], "more": (None, True)}
    (tmp_path / "train").write_bytes(pickle.dumps(batch, protocol))
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}, protocol))
    out = tmp_path / "out.qvq"
    summary = kuat.encode(tmp_path, out, size=32, progress=False)
    assert summary["classes"][99] == "class 99"
    assert parsed(out)[1]["labels"].tolist() == [99, 0, 7]
    assert np.array_equal(decoded(out), data.transpose(0, 2, 3, 1))
