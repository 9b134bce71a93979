"""The benchmarks' page says what the rows say: bars missed and met, peers that win, what was not measured."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benches"))

from report.bars import bars  # noqa: E402
from report.collect import run  # noqa: E402
from report.page import page  # noqa: E402
from report.provenance import machine  # noqa: E402
from report.rows import Rows, ratio  # noqa: E402


def peer(name, work, batch, images_per_s, **more):
    known = {"workers": 2, "checked": "equal", "version": "1", "bytes_per_image": 150_528, "code": None}
    row = {"table": "peers", "peer": name, "work": work, "batch": batch, "images_per_s": images_per_s}
    return {**known, **row, "program": "peers", **more}


def kuat(patch, work, batch, images_per_s):
    db, size = {4: (31.0, 6_272), 2: (36.0, 25_088)}[patch]
    lossy = {"checked": "equal to numpy's decoding", "code": "kuat", "psnr_db": db, "codebook_bytes": 786_432}
    return peer(f"kuat {patch}x{patch}, batches", work, batch, images_per_s, patch=patch, bytes_per_image=size, **lossy)


def decode(ratio, **more):
    row = {"table": "cpu_decode", "patch": 4, "codewords": 65_536, "indices": "real", "dtype": "u8", "layout": "nhwc"}
    row |= {"normalized": False, "batch": 512, "threads": 1, "images_per_s": 90_000.0, "limit": "memcpy"}
    return {**row, "limit_images_per_s": 90_000.0 / ratio, "ratio": ratio, "path": "avx2", "program": "cpu", **more}


def kernel(adapter, device_type, ratio):
    row = {"table": "gpu_kernel", "adapter": adapter, "driver": "a driver", "device_type": device_type, "patch": 4}
    row |= {"dtype": "f32", "layout": "nchw", "normalized": True, "batch": 64, "workgroup": 128, "chosen": True}
    row |= {"program": "gpu"}
    return {**row, "images_per_s": 12_345.0, "fill_images_per_s": 12_345.0 / ratio, "ratio": ratio}


ROWS = [
    kuat(4, "f32 NCHW", 256, 22_000.0),
    kuat(2, "f32 NCHW", 256, 15_000.0),
    kuat(4, "f32 NCHW", 64, 21_111.0),
    kuat(4, "u8 NHWC", 256, 90_000.0),
    peer("raw memmap", "f32 NCHW", 256, 2_000.0),
    peer("raw memmap", "u8 NHWC", 256, 120_000.0),
    peer("FFCV raw", "f32 NCHW", 256, 4_000.0),
    peer(
        "FFCV JPEG", "f32 NCHW", 256, 2_200.0, code="JPEG", checked="PSNR 39.0 dB", psnr_db=39.0, bytes_per_image=9000
    ),
    peer("torchvision ImageFolder", "f32 NCHW", 64, 700.0),
    {"table": "peers", "peer": "DALI, CPU", "missing": "no wheel for this machine", "program": "peers"},
    decode(1.2),
    decode(0.8, patch=2),
    decode(0.3, indices="random"),
    kernel("llvmpipe (LLVM 15)", "software", 0.5),
    {
        "table": "cpu_call",
        "image": "32x32",
        "dtype": "u8",
        "batch": 1,
        "call_us": 6.0,
        "per_image_us": 2.0,
        "fixed_us": 4.0,
    },
]
FACTS = {
    "cpu": "A CPU",
    "cores": 2,
    "memory_bytes": 8 << 30,
    "os": "An OS",
    "adapters": [{"name": "llvmpipe", "api": "vulkan", "kind": "software", "driver": "llvmpipe", "driver_info": "22"}],
    "versions": {"kuat": "0.1.0", "rust": "1.88", "python": "3.11", "peers": {}},
    "programs": {
        "peers": {"date": "2026-01-01", "commit": "abc"},
        "gpu": {"date": "", "commit": "", "failure": "died"},
    },
    "dataset": {
        **{"name": "dogs", "images": 1_000, "classes": 10, "format": "JPEG", "median_width": 400},
        **{"median_height": 320, "bytes_per_file": 25_000},
    },
}


def rendered(rows):
    return page([{"machine": "a-cpu", "provenance": FACTS, "rows": rows}], [{}])


def lines(text, *words):
    """The lines with all of these words."""
    return [line for line in text.splitlines() if all(word in line for word in words)]


def the_bar(rows, *words):
    found = [bar for bar in bars(rows) if all(word in bar.what for word in words)]
    assert len(found) == 1, [bar.what for bar in found]
    return found[0]


def test_bars_are_met_or_missed_by_their_numbers():
    assert the_bar(ROWS, "copying the same pixels", "4x4").met is True
    assert the_bar(ROWS, "copying the same pixels", "2x2").met is False
    assert the_bar(ROWS, "raw memmap through torch", "4x4").measured == pytest.approx(11)
    assert the_bar(ROWS, "raw memmap through torch", "4x4").met is True
    assert the_bar(ROWS, "raw memmap through torch", "2x2").met is False
    assert the_bar(ROWS, "f32 NCHW / FFCV raw", "4x4").measured == pytest.approx(5.5)
    assert the_bar(ROWS, "lavapipe", "f32").met is False
    assert the_bar(ROWS, "fixed cost").met is True


def test_random_indices_and_other_batches_do_not_count_for_the_bar_of_real_archives():
    assert [bar.measured for bar in bars(ROWS) if "copying the same pixels" in bar.what] == [1.2, 0.8]
    assert the_bar([decode(1.2, batch=64)], "copying the same pixels").met is None


def test_what_was_not_measured_is_said_and_not_met():
    everything = bars([])
    assert len(everything) >= 8
    assert all(bar.met is None and bar.wanted is not None for bar in everything)
    assert len(lines(rendered([]), "not measured")) >= len(everything)


def test_a_real_gpu_has_a_bar_of_its_own():
    fast = kernel("Some GPU", "discrete", 0.95)
    assert the_bar([*ROWS, fast], "Some GPU").met is True
    assert the_bar([*ROWS, fast], "lavapipe", "f32").met is False


def test_a_bar_missed_is_marked_on_the_page():
    text = rendered(ROWS)
    missed = lines(text, "**missed**", "copying the same pixels")
    assert len(missed) == 1 and "2x2" in missed[0] and "0.80" in missed[0] and ">= 1" in missed[0]
    assert len(lines(text, "| met |", "copying the same pixels", "4x4", "1.20")) == 1


def test_peers_that_win_are_named():
    text = rendered(ROWS)
    assert len(lines(text, "**raw memmap** is faster", "4x4", "u8 NHWC", "1.33 times at batch 256")) == 1
    assert not lines(text, "**FFCV raw** is")
    # JPEG of 39 dB in 9,000 bytes is better than 36 dB in 25,088, and no rival to 31 dB in 6,272.
    assert len(lines(text, "Quality in no more bytes", "2x2", "FFCV JPEG (39.0 dB at 9,000 bytes)")) == 1
    assert not lines(text, "Quality in no more bytes", "4x4")
    assert lines(text, "Exact pixels", "FFCV raw", "raw memmap")


def test_peers_that_are_missing_are_shown_with_the_reason():
    assert lines(rendered(ROWS), "DALI, CPU", "not available: no wheel for this machine")
    assert lines(rendered(ROWS), "gpu", "died")


def test_the_originals_table_has_its_figures_and_ours():
    text = rendered(ROWS)
    assert lines(text, "ImageFolder", "| 691 |", "700 (batch 64)")
    assert lines(text, "batch 64", "4,168", "21,111 (4x4)")
    assert lines(text, "batch 512", "6,252", "not measured")
    assert lines(text, "GPU", "50,000+", "12,345 (llvmpipe (LLVM 15), software)")
    assert "Only software adapters" in text
    assert "Only software adapters" not in rendered([*ROWS, kernel("Some GPU", "discrete", 0.95)])


def test_opening_and_rows_from_disk_are_shown():
    opened = {"table": "open", "samples": 10**8, "file_bytes": 628 * 10**9, "open_us": 19.5, "resident_bytes": 131_072}
    disk = {"table": "cold", "patch": 2, "cached": False, "threads": 2, "batch": 64, "advice": "will-need"}
    disk |= {"images_per_s": 12_345.6, "read_bytes_per_image": 28_616.0, "file_bytes": 4 * 10**9}
    text = rendered([{**row, "program": "archive"} for row in (opened, disk)])
    assert lines(text, "100,000,000", "628,000,000,000", "19.50", "131,072")
    assert lines(text, "| no |", "will-need", "12,346", "28,616", "4,000,000,000")
    assert "page cache (" not in rendered(ROWS)


def test_layers_are_shown_and_count_for_no_bar():
    layers = {"table": "cpu_layers", "patch": 8, "codewords": None, "bytes_per_image": 10_897.4, "path": "avx512"}
    layers = decode(0.27, **layers, images_per_s=34_567.0)
    assert lines(rendered([layers]), "| real |", "10,897", "avx512", "34,567", "memcpy", "0.27")
    assert all(bar.measured is None for bar in bars([layers]))


def test_rows_of_a_program_are_kept_whatever_else_it_prints_and_however_it_ends(capfd):
    program = "print('{\"table\": \"open\", \"samples\": 1}'); print('warming up'); print(3); print('{}'); exit(7)"
    rows, failure = run("cpu", [sys.executable, "-c", program])
    assert rows == [{"table": "open", "samples": 1}] and failure == "ended with status 7"
    assert "warming up" in capfd.readouterr().err
    assert run("cpu", [sys.executable, "-c", ""]) == ([], None)


def test_a_machine_is_named_by_its_cpu():
    names = {
        "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz": "intel-core-i7-8550u-2-cores",
        "AMD EPYC 9654 96-Core Processor": "amd-epyc-9654-2-cores",
    }
    for cpu, name in names.items():
        assert machine({"cpu": cpu, "cores": 2}) == name


def test_ratios_are_medians_of_rounds():
    fast = {"images_per_s": 10, "rounds": [10, 20, 40]}
    slow = {"images_per_s": 10, "rounds": [5, 5, 40]}
    assert ratio(fast, slow) == 2
    assert ratio(fast, {"images_per_s": 4}) == 2.5
    assert ratio(fast, None) is None


def test_rows_are_chosen_by_their_values():
    rows = Rows(ROWS)
    assert len(rows.where("cpu_decode", indices="real")) == 2
    assert rows.where("peers", work="u8 NHWC").best()["peer"] == "raw memmap"
    assert rows.where("none").best() is None
