"""Files that are damaged, odd or made to do harm end in a sample or in an error that names them.

KUAT_TEST_IMAGES names a folder whose subfolder `hostile` holds such files and MANIFEST.tsv, which says of each whether
it is an image (ok), none (reject), or may be taken either way (lenient).
"""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest

KUAT = Path(__file__).parent.parent / "target/release/kuat"
HOSTILE = Path(os.environ.get("KUAT_TEST_IMAGES", "")) / "hostile"
# The largest ones have 256x256 pixels; a bomb that is not refused takes gigabytes.
MOST_KIB = 256 * 1024

if os.environ.get("KUAT_TEST_IMAGES"):
    with open(HOSTILE / "MANIFEST.tsv") as file:
        FILES = {row["file"]: row["expected"] for row in csv.DictReader(file, delimiter="\t")}
else:
    pytest.skip("KUAT_TEST_IMAGES is not set", allow_module_level=True)


@pytest.mark.parametrize("name", FILES)
def test_a_sample_or_a_named_error(name, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(HOSTILE / name, tmp_path / "images")
    out = tmp_path / "out.qvq"
    command = [KUAT, "--threads", "2", "encode", tmp_path / "images", "-o", out, "--size", "32", "--codebook", "16"]
    with open(tmp_path / "err", "w+b") as err:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        message = err.read().decode()
    assert usage.ru_maxrss < MOST_KIB
    if process.returncode == 0:
        assert FILES[name] != "reject"
        assert subprocess.run([KUAT, "verify", out], capture_output=True).returncode == 0
    else:
        assert FILES[name] != "ok", message
        assert process.returncode == 2 and not out.exists()
        assert name in message and len(message.strip().splitlines()) == 1, message


def test_all_at_once_leave_the_images(tmp_path):
    out = tmp_path / "out.qvq"
    command = [KUAT, "encode", HOSTILE, "-o", out, "--size", "32", "--codebook", "64", "--on-error", "skip"]
    subprocess.run(command, check=True, capture_output=True)
    assert subprocess.run([KUAT, "verify", out], capture_output=True).returncode == 0
