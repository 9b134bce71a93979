"""The command, as a module and as a script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oracle import decoded
from PIL import Image

import kuat

SCRIPT = Path(sys.executable).with_name("kuat.exe" if sys.platform == "win32" else "kuat")
COMMANDS = [
    pytest.param([sys.executable, "-m", "kuat"], id="module"),
    pytest.param(
        [str(SCRIPT)], id="script", marks=pytest.mark.skipif(not SCRIPT.exists(), reason="kuat is not installed")
    ),
]


@pytest.fixture(params=COMMANDS)
def command(request):
    return request.param


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("command") / "images.qvq"
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 16, 3), dtype=np.uint8)
    items = [(image, i % 2, f"caption {i}") for i, image in enumerate(images)]
    kuat.encode(items, path, size=(16, 12), codebook=20, classes=["a", "b"], progress=False)
    return path


def run(command, *arguments, status=0):
    """What a command prints, and its errors, which are lines without a traceback."""
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr and "panicked" not in done.stderr
    return done.stdout, done.stderr


def test_version_and_help(command):
    assert run(command, "--version")[0] == f"kuat {kuat.__version__}\n"
    assert "Usage: kuat" in run(command, "--help")[0]
    assert "Usage: kuat" in run(command, status=2)[1]


def test_info_and_devices(command, path):
    archive = kuat.KuatArchive(path)
    assert json.loads(run(command, "info", "--json", path)[0]) == archive.info()
    assert "16x12, 3 channels" in run(command, "info", path)[0]
    devices = json.loads(run(command, "devices", "--json")[0])["adapters"]
    assert devices == [{k: v for k, v in device.items() if k != "index"} for device in kuat.devices()]


def test_exit_statuses(command, path, tmp_path):
    assert json.loads(run(command, "verify", "--json", path)[0])["samples"] == 6
    damaged = tmp_path / "damaged.qvq"
    damaged.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    report = json.loads(run(command, "verify", "--json", damaged, status=1)[0])
    theirs = kuat.KuatArchive(damaged).verify()
    assert {key: theirs[key] for key in report} == report and not theirs["ok"]
    for arguments in (
        ["info", tmp_path / "missing.qvq"],
        ["info"],
        ["no such command"],
        ["info", __file__],
        ["decode", path, "--out", tmp_path / "x.npy", "--samples", "6"],
        ["--threads", "0", "info", path],
    ):
        output, error = run(command, *arguments, status=2)
        assert output == "" and error.startswith("kuat: ") and error.count("\n") == 1
    assert os.listdir(tmp_path) == ["damaged.qvq"]


def test_decode(command, path, tmp_path):
    run(command, "decode", path, "--out", tmp_path / "all.npy", "--threads", "1")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), decoded(path))
    options = ["--samples", "4,1-2", "--dtype", "f32", "--layout", "nchw"]
    run(command, "decode", path, "--out", tmp_path / "some.npy", *options)
    found = np.load(tmp_path / "some.npy")
    wanted = kuat.KuatArchive(path).decode_batch([4, 1, 2], dtype="float32", layout="NCHW", device="cpu")
    np.testing.assert_array_equal(found, wanted)
    run(command, "decode", path, "--out", tmp_path / "images")
    names = sorted(os.listdir(tmp_path / "images"))
    images = [np.asarray(Image.open(tmp_path / "images" / name)) for name in names]
    np.testing.assert_array_equal(images, decoded(path))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
def test_readers_that_go_away(command, path):
    for arguments in (["info", "--json", path], ["--help"], ["encode", "--help"]):
        process = subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert (process.wait(60), error) == (0, b"")


def noise(folder, count=60, side=128):
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_leaves_no_files(command, tmp_path):
    source, target = noise(tmp_path / "source"), tmp_path / "target"
    target.mkdir()
    arguments = ["encode", source, "-o", target / "out.qvq", "--size", "512", "--codebook", "100000"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error and output == ""
    assert time.monotonic() - start < 20
    assert os.listdir(target) == []
    # And if it is not interrupted:
    run(command, "encode", source, "-o", target / "out.qvq", "--size", "16", "--codebook", "50", "--json")
    assert os.listdir(target) == ["out.qvq"] and kuat.KuatArchive(target / "out.qvq").verify()["ok"]


def test_arguments_of_this_process(path, monkeypatch, capfd):
    from kuat import __main__

    monkeypatch.setattr(sys, "argv", ["anything", "info", str(path)])
    assert __main__.main() == 0 and "codewords" in capfd.readouterr().out
