"""The page on quality says what the rows say, and says it where JPEG is better and where it is not."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benches"))

from quality.page import beside, interpolated, page  # noqa: E402


def jpeg(quality, size, psnr, ssim):
    return {"codec": "JPEG 4:2:0", "setting": quality, "bytes_per_image": size, "psnr_db": psnr, "ssim": ssim}


def kuat(trained_on, size, file_size, psnr, ssim):
    row = {"codec": "kuat", "patch": 4, "codewords": 4096, "trained_on": trained_on, "bytes_per_image": size}
    row |= {"codebook_bytes": 196_608, "file_bytes_per_image": file_size, "first_percentile_db": psnr - 3}
    return {**row, "psnr_db": psnr, "ssim": ssim}


def result(*rows):
    about = {"set": "some", "size": [224, 224], "images": 200, "measured": 100, "seconds": 1, "date": "2026-01-01"}
    jpegs = [jpeg(5, 1_000, 24.0, 0.6), jpeg(50, 4_000, 32.0, 0.9), jpeg(95, 16_000, 40.0, 0.98)]
    return {**about, "commit": "abc", "versions": {"kuat": "1"}, "rows": [*jpegs, *rows]}


def test_jpeg_is_interpolated_over_the_logarithm_of_the_bytes():
    rows = result()["rows"]
    assert interpolated(rows, "bytes_per_image", "psnr_db", 4_000) == 32
    assert interpolated(rows, "bytes_per_image", "psnr_db", 2_000) == pytest.approx(28)
    assert interpolated(rows, "psnr_db", "bytes_per_image", 36) == pytest.approx(8_000)
    assert interpolated(rows, "bytes_per_image", "psnr_db", 999) is None


def test_each_row_stands_beside_the_bytes_it_takes():
    found = beside(
        result(kuat("other images", 2_000, 9_999, 26.0, 0.7), kuat("the same images", 2_000, 8_000, 30.0, 0.8))
    )
    assert [(row["bytes"], row["jpeg_psnr_db"]) for row in found] == [
        (2_000, pytest.approx(28)),
        (8_000, pytest.approx(36)),
    ]
    # What JPEG cannot be as small as is no comparison.
    assert beside(result(kuat("other images", 500, 500, 20.0, 0.5))) == []


def words(results):
    """The page, whatever its line breaks."""
    return " ".join(page(results, ["some.png"]).split())


def test_the_page_counts_where_jpeg_is_better():
    worse, better = kuat("other images", 2_000, 3_000, 26.0, 0.7), kuat("other images", 4_000, 5_000, 33.0, 0.8)
    said = words([result(worse)])
    assert "higher PSNR in all of the comparisons" in said and "2.0 to 2.0 dB" in said
    said = words([result(worse, better)])
    assert "higher PSNR in 1 of 2 of the comparisons" in said and "higher SSIM in all" in said
    assert "](some.png)" in said and "## some, 224x224" in said
    bc1 = {"codec": "BC1", "setting": "full size", "bytes_per_image": 25_088.0, "psnr_db": 33.5, "ssim": 0.97}
    assert "On some it has 33.5 dB at 25,088 bytes, kuat" in words([result(worse, bc1)])
