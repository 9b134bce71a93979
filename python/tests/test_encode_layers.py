"""kuat.encode with codec="layers", checked by what the archive's own decoder gives back."""

import numpy as np
import pytest
from helpers import DEVICES, assert_same

import kuat

OPTIONS = dict(size=(40, 28), codec="layers", progress=False)


def waves(count=12):
    """Pictures of waves and a little noise."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:28, :40]
    images = []
    for i in range(count):
        phase = [np.sin((x * (1 + i % 3) + y * (k + 1)) / (3 + i % 4) + i) for k in range(3)]
        images.append(np.clip(127 + 90 * np.stack(phase, -1) + random.normal(0, 3, (28, 40, 3)), 0, 255))
    return np.stack(images).astype(np.uint8)


IMAGES = waves()
ITEMS = [(image, i % 2) for i, image in enumerate(IMAGES)]


def psnr(image, other):
    return 10 * np.log10(255**2 / np.square(image.astype(float) - other).mean())


def test_figures_are_those_of_the_decoded_images(tmp_path):
    path = tmp_path / "a.qvq"
    summary = kuat.encode(ITEMS, path, quality=80, **OPTIONS)
    assert (summary["codec"], summary["samples"], summary["file_len"]) == ("layers", 12, path.stat().st_size)
    with kuat.KuatArchive(path) as archive:
        assert archive.codec == "layers"
        assert [archive.label(i) for i in range(12)] == [label for _, label in ITEMS]
        found = [psnr(image, archive.decode(i)) for i, image in enumerate(IMAGES)]
    assert summary["mean_psnr_db"] == pytest.approx(np.mean(found))
    assert summary["min_psnr_db"] == pytest.approx(np.min(found))


def test_better_takes_more(tmp_path):
    summaries = [kuat.encode(ITEMS, tmp_path / "a.qvq", quality=quality, **OPTIONS) for quality in (20, 80)]
    assert summaries[0]["mean_psnr_db"] < summaries[1]["mean_psnr_db"]
    assert summaries[0]["bytes_per_image"] < summaries[1]["bytes_per_image"]


def test_codebooks_of_another_archive(tmp_path):
    kuat.encode(ITEMS, tmp_path / "a.qvq", quality=60, **OPTIONS)
    first = kuat.KuatArchive(tmp_path / "a.qvq")
    options = dict(codebook=first, quality=60, progress=False)
    summary = kuat.encode(ITEMS, tmp_path / "b.qvq", **options)
    second = kuat.KuatArchive(tmp_path / "b.qvq")
    assert (second.codec, second.dimensions) == ("layers", (3, 28, 40))
    assert np.array_equal(first.decode_batch(range(12)), second.decode_batch(range(12)))
    size = summary["bytes_per_image"]
    options["quality"] = None
    again = kuat.encode(ITEMS, tmp_path / "c.qvq", **options, bytes_per_image=size)
    assert again["bytes_per_image"] == pytest.approx(size, rel=0.02)
    # Room for a long header is kept.
    again = kuat.encode(ITEMS, tmp_path / "c.qvq", **options, target_bytes=summary["file_len"])
    assert summary["file_len"] - 3000 < again["file_len"] <= summary["file_len"]
    asked = summary["min_psnr_db"] - 1
    reached = kuat.encode(ITEMS, tmp_path / "c.qvq", **options, psnr=asked)
    assert asked <= reached["min_psnr_db"] and reached["bytes_per_image"] < size


def test_builtin_codebooks_need_no_training(tmp_path):
    # A light on a wall.
    y, x = np.mgrid[:28, :40]
    light = 200 * np.exp(-((x - 15) ** 2 + (y - 12) ** 2) / 300)
    image = np.stack([light + 40, light + 30, light * 0.8 + 30], -1).astype(np.uint8)
    summary = kuat.encode([image], tmp_path / "a.qvq", size=(40, 28), codebook="builtin", progress=False)
    assert summary["codec"] == "layers" and summary["mean_psnr_db"] > 35
    first = kuat.KuatArchive(tmp_path / "a.qvq")
    kuat.encode([image, *IMAGES], tmp_path / "b.qvq", codebook=first, progress=False)
    assert np.array_equal(kuat.KuatArchive(tmp_path / "b.qvq").decode(0), first.decode(0))


def test_what_only_plain_vector_quantisation_has_says_so(tmp_path):
    kuat.encode(ITEMS, tmp_path / "a.qvq", codebook="builtin", **OPTIONS)
    archive = kuat.KuatArchive(tmp_path / "a.qvq")
    indices = np.zeros((1, 3, 5), np.uint32)
    for ask in (
        lambda: archive.codebook,
        lambda: archive.codebook_numpy(),
        lambda: archive.codebook_size,
        lambda: archive.get_indices_batch([0]),
        lambda: archive.decode_indices(indices),
        lambda: kuat.encode(ITEMS, tmp_path / "b.qvq", codec="vq", codebook=archive, progress=False),
    ):
        with pytest.raises(ValueError, match='codec is "layers".*codec "vq"'):
            ask()


def test_batches_of_every_device(tmp_path):
    path = tmp_path / "a.qvq"
    kuat.encode(ITEMS, path, codebook="builtin", **OPTIONS)
    archive = kuat.KuatArchive(path)
    order, expected = [7, 0, 0, 11], archive.decode_batch([7, 0, 0, 11], device="cpu")
    for device in ["cpu", *(device["index"] for device in DEVICES)]:
        assert np.array_equal(archive.decode_batch(order, device=device), expected)
        assert_same(archive.decode_batch(order, device=device, dtype="float32"), expected / 255, "float32")
    shuffled = kuat.KuatDataset(path, batch_size=5, shuffle=True, seed=1)
    pairs = [pair for batch in shuffled.epoch() for pair in zip(batch["images"], batch["labels"])]
    found = [(image.tobytes(), label) for image, label in pairs]
    assert sorted(found) == sorted((archive.decode(i).tobytes(), i % 2) for i in range(12))


def test_images_one_by_one(tmp_path):
    kuat.encode(ITEMS, tmp_path / "a.qvq", quality=60, **OPTIONS)
    with kuat.ArchiveWriter(tmp_path / "b.qvq", quality=60, **OPTIONS) as writer:
        for image, label in ITEMS:
            writer.add(image, label)
    assert (tmp_path / "a.qvq").read_bytes() == (tmp_path / "b.qvq").read_bytes()


@pytest.mark.parametrize(
    "options, error, match",
    [
        (dict(codec="jpeg"), ValueError, "codec is 'jpeg', expected 'vq' or 'layers'"),
        (dict(codec="vq", quality=75), ValueError, "quality is 75, expected None with codec='vq'"),
        (dict(patch=4), ValueError, "patch is 4, expected None with codec='layers'"),
        (dict(max_error=0), ValueError, "max_error is 0, expected None with codec='layers'"),
        (dict(codebook=64), TypeError, "codebook is 64, expected an archive"),
        (dict(quality=75, psnr=30), ValueError, "quality and psnr are given"),
        (dict(quality=101), ValueError, "quality is 101, expected 1 to 100"),
        (dict(channels=4), ValueError, 'the codec "vq" takes 4'),
    ],
)
def test_wrong_arguments(options, error, match, tmp_path):
    with pytest.raises(error, match=match):
        kuat.encode(ITEMS, tmp_path / "a.qvq", **{**OPTIONS, **options})
    assert list(tmp_path.iterdir()) == []
