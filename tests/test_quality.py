"""The page on quality says what the rows say, and says it where JPEG is better and where it is not."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "benches"))

from quality import images  # noqa: E402
from quality.page import beside, codebooks, interpolated, page  # noqa: E402


def file(codec, quality, size, psnr, ssim, speed):
    row = {"codec": codec, "setting": quality, "bytes_per_image": size, "psnr_db": psnr, "ssim": ssim}
    return {**row, "images_per_s": speed}


def layers(size, psnr, ssim, books="of other images of the set"):
    row = {"codec": "layers", "books": books, "bytes_per_image": size, "psnr_db": psnr, "ssim": ssim}
    return {**row, "codebook_bytes": 2_000_000, "images_per_s": 20_000}


def result(*rows):
    about = {"set": "some", "size": [224, 224], "measured": 100, "trained": 300, "date": "2026-01-01", "commit": "abc"}
    jpegs = [
        file("JPEG 4:2:0", 5, 1_000, 24.0, 0.6, 8_000),
        file("JPEG 4:2:0", 50, 4_000, 32.0, 0.9, 4_000),
        file("JPEG 4:2:0", 95, 16_000, 40.0, 0.98, 2_000),
    ]
    webps = [file("WebP", 0, 1_000, 26.0, 0.7, 1_000), file("WebP", 90, 16_000, 42.0, 0.99, 500)]
    return {**about, "versions": {"kuat": "1"}, "cpu": "a processor", "rows": [*jpegs, *webps, *rows]}


def test_jpeg_is_interpolated_over_the_logarithm_of_the_bytes():
    rows = result()["rows"][:3]
    assert interpolated(rows, "bytes_per_image", "psnr_db", 4_000) == 32
    assert interpolated(rows, "bytes_per_image", "psnr_db", 2_000) == pytest.approx(28)
    assert interpolated(rows, "psnr_db", "bytes_per_image", 36) == pytest.approx(8_000)
    assert interpolated(rows, "psnr_db", "images_per_s", 36) == pytest.approx(8**0.5 * 1_000)
    assert interpolated(rows, "bytes_per_image", "psnr_db", 999) is None


def test_a_row_stands_beside_files_of_as_many_bytes_and_jpeg_of_its_quality():
    found = beside(result(), layers(2_000, 32.0, 0.8))
    assert found["above_jpeg"] == pytest.approx(4) and found["ssim_above_jpeg"] == pytest.approx(0.05)
    assert found["above_webp"] == pytest.approx(2) and found["times_jpeg"] == pytest.approx(5)
    # What JPEG cannot be as small as, or as good as, is no comparison.
    found = beside(result(), layers(500, 50.0, 0.8))
    assert [found[key] for key in ("above_jpeg", "above_webp", "times_jpeg")] == [None] * 3
    # Small files are held against those that share their tables, which is harder.
    shared = [
        file("JPEG 4:2:0, tables shared", quality, size, 30.0, 0.9, 1) for quality, size in ((5, 1_000), (9, 3_000))
    ]
    assert beside(result(*shared), layers(2_000, 32.0, 0.8))["above_jpeg"] == pytest.approx(2)


def words(*rows, **more):
    """The page, whatever its line breaks."""
    return " ".join(page([result(*rows)], Path("pictures"), **more).split())


def test_the_page_counts_where_others_are_better():
    worse, good, best = layers(2_000, 26.0, 0.7), layers(4_000, 33.0, 0.91), layers(8_000, 41.0, 0.99, "built in")
    said = words(worse, good)
    assert "JPEG has the higher PSNR in 1 of 2 rates below, by up to 2.0 dB." in said
    assert "WebP has the higher PSNR in 2 of 2 rates below" in said and "should keep WebP" in said
    said = words(best)
    assert "Layers have the higher PSNR than JPEG at all 1 rates below." in said and "should keep" not in said
    assert "](pictures/some.png)" in said and "## some, 224x224" in said
    assert "| layers | 2,000,000 | 2,000 | 200 | 20 | 2 |" in said
    # Each set of codebooks has a line of its own, from the lowest rate to the highest.
    assert codebooks(result(worse, good, best)) == ["of other images of the set", "built in"]
    assert "| of other images of the set | 2,000 to 4,000 | -2.0 dB to +1.0 dB |" in words(worse, good, best)


def test_the_page_says_which_accuracies_differ():
    def row(codec, accuracy, difference, error):
        about = {"set": "some", "side": 32, "images": 100, "codec": codec, "bytes_per_image": 200.0}
        found = {"accuracy": accuracy, "accuracy_on_coded": accuracy, "difference": difference}
        return {**about, **found, "standard_error": error}

    original, near = row("original pixels", [0.5, 0.6, 0.4], 0.0, 0.0), row("layers", [0.49, 0.6, 0.4], -0.003, 0.004)
    about = {"seeds": 3, "parts": 5, "epochs": 20, "books": "some"}
    said = words(training={**about, "rows": [original, near]})
    assert "0 of 1 differences are larger" in said and "| 49.7 ± 10.0 % | -0.3 ± 0.4 | 49.7 % |" in said
    far = row("JPEG", [0.4, 0.5, 0.3], -0.1, 0.01)
    said = words(training={**about, "rows": [original, near, far]})
    assert "1 of 2 differences are larger than twice their standard error: JPEG in 200 bytes, some." in said


def test_tables_of_jpeg_files_are_told_from_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    whole = images.encoded(pixels, images.SHARED, 50)
    # Pillow writes the tables and the picture apart, as TIFF has them.
    tables, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(tables, "JPEG", quality=50, subsampling="4:2:0", streamtype=1)
    Image.fromarray(pixels).save(picture, "JPEG", quality=50, subsampling="4:2:0", streamtype=2)
    # Both begin and end with a marker of two bytes; a file has a segment of JFIF's before.
    assert images.common(whole) - 18 == len(tables.getvalue()) - 4
    assert images.counted(whole, images.SHARED) + 18 == len(picture.getvalue())
    assert images.counted(whole, images.JPEG) == len(whole)


def test_files_take_at_least_the_bytes_they_are_to_be_compared_at():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    sizes = [np.mean([len(images.encoded(image, images.JPEG, quality)) for image in pixels]) for quality in (60, 61)]
    assert sizes[0] < sizes[1]
    found = images.at_least((sizes[0] + sizes[1]) / 2, images.JPEG, pixels)
    assert np.mean([len(one) for one in found]) == sizes[1]


def test_portraits_are_laid_on_their_side_and_cut_around_the_centre(tmp_path):
    path = tmp_path / "portrait.png"
    Image.new("RGB", (300, 500), "red").save(path)
    assert images.prepared(path, (768, 512)).shape == (512, 768, 3)
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 90:110] = 255
    Image.fromarray(pixels).save(path)
    cut = images.prepared(path, (50, 50), short=64)
    # The stripe is 20 of 200 wide: 12.8 of 128, in the middle of 50.
    assert cut.shape == (50, 50, 3) and cut[25, 25, 0] == 255 and cut[25, 17, 0] == 0 and cut[25, 33, 0] == 0
