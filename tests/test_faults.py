"""Disks that are full, folders that are gone, outputs that are inputs: each is one line that names the path, the inputs
and the archive that was there stay as they are, and nothing half written is left."""

import csv
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kuat

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file systems of Unix")
KUAT = Path(__file__).parent.parent / "target/release/kuat"
ENCODE = ["--threads", "2", "encode", "photos", "--size", "32", "--patch", "2", "--codebook", "500"]
SLOW = ["--threads", "2", "encode", "photos", "--size", "512", "--patch", "2", "--codebook", "60000"]
OLD = b"an older archive"


@pytest.fixture
def scene(tmp_path):
    """A folder with pictures of two classes and an archive of them, `a.qvq`."""
    for i in range(24):
        path = tmp_path / "photos" / "cd"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    assert run(tmp_path, *ENCODE, "-o", "a.qvq")[0] == 0
    return tmp_path


def run(folder, *arguments, **options):
    """Exit status and errors of the command."""
    command = [KUAT, *map(os.fspath, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, **options)
    return done.returncode, done.stderr.decode(errors="replace")


def tree(folder):
    """All that is in a folder: what kind each thing is, and what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path) if stat.S_ISLNK(mode) else None
        found[path] = stat.S_IFMT(mode), content
    return found


def refused(folder, *arguments, names, says="", **options):
    """The command's error: one line that names something, after which all is as it was."""
    before = tree(folder)
    status, error = run(folder, *arguments, **options)
    assert status == 2, (status, error)
    assert len(error.strip().splitlines()) == 1 and str(names) in error and says in error, error
    assert tree(folder) == before
    return error


@pytest.fixture
def small_disk(tmp_path):
    """Makes file systems of a few KiB."""
    mounted = []

    def mount(kib):
        folder = tmp_path / f"disk{kib}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system of its own can be mounted here (it takes root and CAP_SYS_ADMIN)")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(scene, small_disk):
    whole = (scene / "a.qvq").stat().st_size
    for kib in (4, 16, whole // 1024 // 2, whole // 1024 - 4):
        disk = small_disk(kib)
        (disk / "a.qvq").write_bytes(OLD)
        for codec in ([], ["--save-every", "0"]):
            status, error = run(scene, *ENCODE, *codec, "-o", disk / "a.qvq")
            assert status == 2 and "No space left" in error and str(disk) in error, (kib, error)
            assert len(error.strip().splitlines()) == 1
            assert (disk / "a.qvq").read_bytes() == OLD
            # What was saved may stay, to go on from there once there is room.
            left = {path.name for path in disk.iterdir()} - {"a.qvq"}
            assert left <= ({"a.qvq.partial"} if codec else set()), left
        shutil.rmtree(disk / "a.qvq.partial", ignore_errors=True)
        refused(scene, "decode", "a.qvq", "--out", disk / "b.npy", names=disk / "b.npy", says="No space left")
        with pytest.raises(OSError, match="No space left"):
            kuat.encode(scene / "photos", disk / "a.qvq", size=32, patch=2, codebook=500, progress=False)
        with pytest.raises(OSError, match="No space left"):
            with kuat.ArchiveWriter(disk / "a.qvq", size=64, patch=2, codebook=500, progress=False) as writer:
                for image in np.random.default_rng(0).integers(0, 256, (400, 64, 64, 3), dtype=np.uint8):
                    writer.add(image)
        assert {path.name for path in disk.iterdir()} == {"a.qvq"}
        assert (disk / "a.qvq").read_bytes() == OLD


def test_what_was_saved_on_a_full_disk_goes_on_when_there_is_room(scene, small_disk):
    whole = (scene / "a.qvq").read_bytes()
    disk = small_disk(len(whole) // 1024 - 4)
    assert run(scene, *ENCODE, "--save-every", "0", "-o", disk / "a.qvq")[0] == 2
    assert (disk / "a.qvq.partial").exists()
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    assert run(scene, *ENCODE, "--resume", "-o", disk / "a.qvq")[0] == 0
    assert (disk / "a.qvq").read_bytes() == whole and len(list(disk.iterdir())) == 1


def test_a_limit_on_the_size_of_files_is_an_error_and_no_signal(scene):
    whole = (scene / "a.qvq").stat().st_size
    (scene / "a.qvq").write_bytes(OLD)
    for limit in (0, 100, whole // 2, whole - 1):

        def limited(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        refused(scene, *ENCODE, "-o", "a.qvq", names="a.qvq", says="File too large", preexec_fn=limited)
    code = """
        import resource, sys, kuat
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            kuat.encode("photos", "a.qvq", size=32, patch=2, codebook=500, progress=False)
        except OSError as error:
            assert "File too large" in str(error) and "a.qvq" in str(error)
            print("refused")
    """
    before = tree(scene)
    done = subprocess.run([sys.executable, "-c", "if 1:" + code], cwd=scene, capture_output=True, text=True)
    assert done.stdout == "refused\n", done
    assert tree(scene) == before


def test_a_folder_that_may_not_be_written(scene):
    # Root may write everywhere, and nobody else may read what is root's.
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        shutil.copytree(scene / "photos", place / "photos")
        command = shutil.copy(KUAT, place / "kuat")
        (place / "locked").mkdir()
        (place / "locked/a.qvq").write_bytes(OLD)
        (place / "locked").chmod(0o555)
        before = tree(place)
        user = {"user": 65534, "group": 65534} if os.getuid() == 0 else {}
        for output in ("locked/a.qvq", "locked/b.qvq"):
            done = subprocess.run([command, *ENCODE, "-o", output], cwd=place, capture_output=True, text=True, **user)
            assert done.returncode == 2 and "Permission denied" in done.stderr and output in done.stderr, done
            assert tree(place) == before
        (place / "locked").chmod(0)
        done = subprocess.run(
            [command, *ENCODE, "-o", "locked/a.qvq"], cwd=place, capture_output=True, text=True, **user
        )
        assert done.returncode == 2 and "Permission denied" in done.stderr, done
    finally:
        (place / "locked").chmod(0o755)
        shutil.rmtree(place)


def test_a_folder_that_disappears(scene):
    (scene / "there").mkdir()
    before = tree(scene / "photos")
    some = ["encode", "photos", "--size", "160", "--patch", "2", "--codebook", "4000", "-o", "there/a.qvq"]
    process = subprocess.Popen([KUAT, *some], cwd=scene, stderr=subprocess.PIPE, text=True)
    journal, start = scene / "there/a.qvq.partial/journal", time.monotonic()
    while not journal.exists() and time.monotonic() - start < 30:
        time.sleep(0.002)
    shutil.rmtree(scene / "there")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "there/a.qvq" in error and len(error.strip().splitlines()) == 1, error
    assert not (scene / "there").exists() and tree(scene / "photos") == before


def test_outputs_that_are_no_files(scene):
    os.mkfifo(scene / "pipe")
    (scene / "folder").mkdir()
    (scene / "nowhere").symlink_to("missing/a.qvq")
    (scene / "loop").symlink_to("loop")
    for output, says in {
        "folder": "not a regular file",
        "pipe": "not a regular file",
        "/dev/null": "not a regular file",
        "nowhere": "symbolic link to nowhere",
        "loop": "symbolic links",
        "new/": "names a folder",
        "missing/a.qvq": "No such file",
        "a.qvq/b.qvq": "Not a directory",
        "x" * 256: "too long",
        "x" * 245: "too long",
    }.items():
        refused(scene, *ENCODE, "-o", output, names=output, says=says)
        with pytest.raises(OSError, match=says):
            os.chdir(scene)
            kuat.encode("photos", output, size=32, codebook=50, progress=False)
    refused(scene, "decode", "a.qvq", "--out", "nowhere.npy/", names="nowhere.npy")


def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(scene):
    (scene / "store").mkdir()
    (scene / "store/real.qvq").write_bytes(OLD)
    (scene / "link.qvq").symlink_to("store/real.qvq")
    assert run(scene, *ENCODE, "-o", "link.qvq")[0] == 0
    assert os.readlink(scene / "link.qvq") == "store/real.qvq"
    assert (scene / "store/real.qvq").read_bytes() == (scene / "a.qvq").read_bytes()
    assert [path.name for path in (scene / "store").iterdir()] == ["real.qvq"]


def test_an_output_that_is_an_input_is_refused(scene):
    image = scene / "photos/c/00.png"
    os.link(image, scene / "hard.qvq")
    (scene / "photos/c/linked.png").symlink_to(scene / "outside.png")
    shutil.copy(image, scene / "outside.png")
    with open(scene / "list.csv", "w") as file:
        csv.writer(file).writerows([["path"], ["photos/c/00.png"], ["photos/c/02.png"]])
    with tarfile.open(scene / "shard.tar", "w") as tar:
        tar.add(image, "00.png")
    (scene / "data_batch_1.bin").write_bytes(bytes(3073))
    made_of = "one of the files that it is made of"
    for source, output in [
        ("photos", "photos/c/00.png"),
        ("photos", "photos/c/../c/00.png"),
        ("photos", "hard.qvq"),
        ("photos", "outside.png"),
        ("photos", "photos/c/linked.png"),
        ("list.csv", "list.csv"),
        ("list.csv", "photos/c/02.png"),
        ("shard.tar", "shard.tar"),
        ("data_batch_1.bin", "data_batch_1.bin"),
    ]:
        refused(scene, "encode", source, "--size", "32", "-o", output, names=output, says=made_of)
        refused(scene, "encode", source, "--size", "32", "--psnr", "30", "-o", output, names=output, says=made_of)
        with pytest.raises(ValueError, match=made_of):
            kuat.encode(scene / source, scene / output, size=32, codebook=50, progress=False)
    items = [str(scene / "photos/c/02.png"), str(image)]
    for source in (items, tuple(items), iter(items), [(item, 0) for item in items]):
        with pytest.raises(ValueError, match="item 1 is .*which the archive would replace"):
            kuat.encode(source, scene / "hard.qvq", size=32, codebook=50, on_error="skip", progress=False)
    with pytest.raises(ValueError, match="item 0 is .*which the archive would replace"):
        with kuat.ArchiveWriter(image, size=32, codebook=50, progress=False) as writer:
            writer.add(image)
    # What is no item is left out over an archive that is there as it is elsewhere.
    for source in ([items[0], (1, 2, 3, 4)], iter([items[0], {"nothing": 1}])):
        shutil.copy(scene / "a.qvq", scene / "again.qvq")
        options = {"size": 32, "codebook": 50, "on_error": "skip", "progress": False}
        summary = kuat.encode(source, scene / "again.qvq", **options)
        assert [skipped["index"] for skipped in summary["skipped"]] == [1]
    read = "the archive that is read"
    (scene / "same.qvq").symlink_to("a.qvq")
    for output in ("a.qvq", "same.qvq"):
        refused(scene, "encode", "photos", "--codebook-from", "a.qvq", "-o", output, names=output, says=read)
        refused(scene, "sheet", "a.qvq", "-o", output, names=output, says=read)
        with kuat.KuatArchive(scene / "a.qvq") as archive, pytest.raises(ValueError, match="codebook"):
            kuat.encode(scene / "photos", scene / output, codebook=archive, progress=False)
    shutil.copy(scene / "a.qvq", scene / "a.npy")
    refused(scene, "decode", "a.npy", "--out", "a.npy", names="a.npy", says=read)


def test_an_archive_inside_its_source(scene):
    """It is no image, so it is made again to the same bytes."""
    for _ in range(2):
        assert run(scene, *ENCODE, "-o", "photos/c/a.qvq")[0] == 0
        assert (scene / "photos/c/a.qvq").read_bytes() == (scene / "a.qvq").read_bytes()


def test_names_that_are_not_utf8(scene):
    name = os.fsdecode(b"\xff\xfe archive.qvq")
    try:
        (scene / name).write_bytes(OLD)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (scene / "photos/c/00.png").rename(scene / "photos/c" / os.fsdecode(b"\xff00.png"))
    assert run(scene, *ENCODE, "-o", name)[0] == 0
    for command in (["verify"], ["info", "--json"], ["verify", "--json", "--against", "photos"], ["bench", "--json"]):
        assert run(scene, *command, name)[0] == 0, command
    for option, out in (("--out", "a.npy"), ("--output", "a.png")):
        out = os.fsdecode(b"\xff") + out
        assert run(scene, "decode" if option == "--out" else "sheet", name, option, out, "--json")[0] == 0
    os.rename(scene / "photos", scene / os.fsdecode(b"\xffphotos"))
    assert run(scene, "compare", "--json", name, os.fsdecode(b"\xffphotos"))[0] == 0
    os.rename(scene / os.fsdecode(b"\xffphotos"), scene / "photos")
    assert kuat.encode(scene / "photos", scene / name, size=32, codebook=50, progress=False)["samples"] == 24
    assert not any(path.name.endswith(".partial") for path in scene.iterdir())


def test_a_target_on_another_file_system(scene):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == scene.stat().st_dev or not os.access(other, os.W_OK):
        pytest.skip("there is no other file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        (scene / "link.qvq").symlink_to(Path(folder, "a.qvq"))
        Path(folder, "a.qvq").write_bytes(OLD)
        assert run(scene, *ENCODE, "-o", "link.qvq")[0] == 0
        assert Path(folder, "a.qvq").read_bytes() == (scene / "a.qvq").read_bytes()
        assert os.listdir(folder) == ["a.qvq"]


def test_standard_output_that_is_full(scene):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([KUAT, "info", "a.qvq"], cwd=scene, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "standard output" in done.stderr and "No space left" in done.stderr


def test_names_do_not_steer_the_terminal(scene):
    (scene / "photos/c").rename(scene / "photos/c\x1b[2Jc\r")
    assert run(scene, *ENCODE, "-o", "a.qvq")[0] == 0
    with kuat.KuatArchive(scene / "a.qvq") as archive:
        assert archive.classes == ["c\x1b[2Jc\r", "d"]
    shown = subprocess.run([KUAT, "info", "a.qvq"], cwd=scene, capture_output=True, check=True).stdout
    assert b"\x1b" not in shown and b"\r" not in shown and b"c\\u{1b}[2Jc\\r" in shown
    (scene / "photos/c\x1b[2Jc\r/00.png").write_bytes(b"no image")
    assert "\x1b" not in run(scene, *ENCODE, "-o", "a.qvq")[1]


def test_a_killed_encoding_leaves_only_its_folder(scene):
    """What is not resumable is nothing; many more moments are tried by `make kills`."""
    (scene / "a.qvq").write_bytes(OLD)
    process = subprocess.Popen([KUAT, *SLOW, "-o", "a.qvq"], cwd=scene, stderr=subprocess.DEVNULL)
    threading.Timer(0.3, process.send_signal, [signal.SIGKILL]).start()
    assert process.wait(60) == -signal.SIGKILL
    assert (scene / "a.qvq").read_bytes() == OLD
    assert {path.name for path in scene.iterdir()} == {"photos", "a.qvq", "a.qvq.partial"}
    assert run(scene, *ENCODE, "-o", "a.qvq")[0] == 0
    assert {path.name for path in scene.iterdir()} == {"photos", "a.qvq"}
