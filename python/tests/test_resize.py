"""Images are brought to a size as Pillow and torchvision do it."""

import json

import numpy as np
import pytest
from oracle import decoded, parsed
from PIL import Image, ImageOps

import kuat

FILTERS = ["bilinear", "bicubic", "lanczos", "box", "hamming"]
# Smaller, larger, of the size, a pixel off, long and thin.
SHAPES = [
    (40, 30), (30, 40), (57, 23), (23, 57), (500, 333), (333, 500), (32, 24), (33, 24), (32, 25), (24, 32), (48, 48),
    (7, 5), (5, 7), (1, 1), (2000, 1), (1, 2000), (1500, 3), (101, 99), (64, 48), (65, 48), (97, 96),
]  # fmt: skip


def image_of(shape, channels=3, seed=0):
    """Waves and hard edges."""
    random = np.random.default_rng([*shape, channels, seed])
    y, x = np.mgrid[: shape[1], : shape[0]]
    planes = []
    for _ in range(channels):
        a, b, phase = random.uniform(0.02, 0.9, 3)
        wave = 127.5 + 127.5 * np.sin(a * x + b * y + 7 * phase)
        edges = random.integers(0, 256, (shape[1] // 9 + 1, shape[0] // 9 + 1)).repeat(9, 0).repeat(9, 1)
        planes.append(np.where((x // 16 + y // 16) % 2, wave, edges[: shape[1], : shape[0]]))
    return np.stack(planes, -1).astype(np.uint8)


def encoded(images, path, **options):
    """The images as they were encoded: with so many codewords nothing is lost."""
    summary = kuat.encode(images, path, patch=4, codebook=65_536, progress=False, **options)
    assert summary["mean_psnr_db"] == 100
    return decoded(path)


def torchvision(image, size, filter, short=None):
    """Resize(short) and CenterCrop(size); without `short`, what covers the size."""
    scaled, (across, down) = scaled_size(image.size, size, short), size
    left, top = int(round((scaled[0] - across) / 2.0)), int(round((scaled[1] - down) / 2.0))
    return resized(image, scaled, filter).crop((left, top, left + across, top + down))


def resized(image, size, filter):
    """Rows first, then columns, as versions of Pillow before 13 always do it."""
    return image.resize((size[0], image.height), filter).resize(size, filter)


def expected(image, size, fit, filter, short=None):
    filter = Image.Resampling[filter.upper()]
    if fit == "crop":
        return torchvision(image, size, filter, short)
    if fit == "stretch":
        return resized(image, size, filter)
    inner = resized(image, ImageOps.contain(image, size).size, filter)
    return ImageOps.pad(inner, size)


def has_ties(image, size, options):
    """Whether a pixel's middle lies on an edge of what a pixel of the result covers: with box, rounding decides."""
    height, width = image.shape[:2]
    if options["fit"] == "crop":
        size = scaled_size((width, height), size, options.get("resize_short"))
    elif options["fit"] == "pad":
        size = ImageOps.contain(Image.fromarray(image), size).size
    for a, b in zip((width, height), size):
        # Edges between them when shrinking; when enlarging the middles of the result's pixels, plus and minus a half.
        places = [2 * a * i for i in range(b) if a > b] + [(2 * i + 1) * a - b for i in range(b) if a < b]
        if any(place % b == 0 and place // b % 2 for place in places):
            return True
    return False


def scaled_size(found, size, short):
    """What torchvision's Resize scales to; without `short`, what covers the size."""
    (width, height), (across, down) = found, size
    if short is not None:
        return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if width * down >= height * across:
        return int(down * width / height), down
    return across, int(across * height / width)


def check(images, size, path, **options):
    found = encoded(images, path, size=size, **options)
    wanted = [
        np.asarray(
            expected(Image.fromarray(image), size, options["fit"], options["filter"], options.get("resize_short"))
        )
        for image in images
    ]
    for image, mine, pillows in zip(images, found, wanted):
        if options["filter"] == "box" and has_ties(image, size, options):
            continue
        away = np.abs(mine.astype(int) - pillows.reshape(mine.shape))
        # Filters that overshoot have larger weights, which kuat rounds to 16 bits.
        assert away.max() <= (2 if options["filter"] in ("bicubic", "lanczos") else 1)
        assert np.mean(away > 1) < 0.002, f"{image.shape[1]}x{image.shape[0]}"


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_every_fit_and_filter_is_pillows(fit, filter, tmp_path):
    # Pillow's pad leaves nothing of long lines.
    shapes = [shape for shape in SHAPES if fit != "pad" or max(shape) < 500 * min(shape)]
    for size in [(32, 24), (24, 32), (28, 28)]:
        check([image_of(shape) for shape in shapes], size, tmp_path / "out.qvq", fit=fit, filter=filter)
    metadata, _ = parsed(tmp_path / "out.qvq")
    assert (metadata["fit"], metadata["filter"], "resize_short" in metadata) == (fit, filter, False)


@pytest.mark.parametrize("filter", FILTERS)
def test_the_evaluation_on_imagenet_is_torchvisions(filter, tmp_path):
    for size, short in [((28, 28), 32), ((28, 28), 28), ((24, 20), 37)]:
        images = [image_of(shape) for shape in SHAPES]
        check(images, size, tmp_path / "out.qvq", fit="crop", filter=filter, resize_short=short)
        assert parsed(tmp_path / "out.qvq")[0]["resize_short"] == str(short)


def test_grey_images_too(tmp_path):
    images = [image_of(shape, channels=1)[..., 0] for shape in SHAPES]
    check(images, (28, 28), tmp_path / "out.qvq", fit="crop", filter="bilinear", channels=1)


def test_what_cannot_be_is_refused(tmp_path):
    images, out = [image_of((40, 30))], tmp_path / "out.qvq"
    for options, message in [
        (dict(resize_short=27), "at least 28"),
        (dict(resize_short=32, fit="pad"), "fit pad"),
        (dict(filter="nearest"), "bilinear, bicubic"),
        (dict(max_pixels=-1), "max_pixels"),
    ]:
        with pytest.raises(ValueError, match=message):
            kuat.encode(images, out, size=28, progress=False, **options)
    with pytest.raises(TypeError, match="filter"):
        kuat.encode(images, out, filter=2, progress=False)
    path = tmp_path / "large.png"
    Image.fromarray(images[0]).save(path)
    with pytest.raises(kuat.Error, match="40x30 pixels, the limit is 1199"):
        kuat.encode([path], out, size=28, max_pixels=1199, progress=False)
    assert kuat.encode([path], out, size=28, max_pixels=1200, progress=False)["samples"] == 1


def test_manifests_and_captions(tmp_path):
    for i in range(4):
        Image.fromarray(image_of((32, 24), seed=i)).save(tmp_path / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "label": ["dog", "cat"][i % 2], "text": f"picture {i}"} for i in range(4)]
    manifest = tmp_path / "metadata.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out.qvq"
    summary = kuat.encode(manifest, out, size=(32, 24), progress=False, classes=["chat", "chien"])
    archive = kuat.KuatArchive(out)
    assert summary["classes"] == ["chat", "chien"]
    assert [archive.label(i) for i in range(4)] == [1, 0, 1, 0]
    assert [archive.caption(i) for i in range(4)] == [f"picture {i}" for i in range(4)]
    with pytest.raises(ValueError, match="1 names, expected 2"):
        kuat.encode(manifest, out, size=(32, 24), progress=False, classes=["one"])
