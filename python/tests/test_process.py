"""Threads, processes, signals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from helpers import DEVICES, SAMPLES, UNIX, expected, run
from oracle import parsed

import kuat


def test_threads_share_an_archive(archive, images, path):
    labels = parsed(path)[1]["labels"]
    end = time.monotonic() + 1
    failures = []

    def work(seed):
        random = np.random.default_rng(seed)
        try:
            while time.monotonic() < end:
                ids = random.integers(-SAMPLES, SAMPLES, random.integers(0, 20))
                device = "cpu" if seed % 4 else "auto"
                assert (
                    archive.decode_batch(ids, layout="NCHW", device=device) == expected(images[ids], layout="NCHW")
                ).all()
                assert (archive.labels(ids) == labels[ids]).all()
                assert (np.from_dlpack(archive.decode_batch(ids, to="dlpack")) == images[ids]).all()
                assert archive.captions(ids[:2]) == [archive.caption(i) for i in ids[:2]]
                with kuat.KuatArchive(path) as other:
                    assert (other.decode(1) == images[1]).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads) and not failures


def test_threads_close_an_archive_in_use(path, images):
    """Whoever is at work ends it; the others are told."""
    for _ in range(20):
        archive = kuat.KuatArchive(path)
        failures, started = [], threading.Barrier(5)

        def work(archive=archive, failures=failures, started=started):
            started.wait()
            try:
                while True:
                    assert (archive.decode_batch(range(SAMPLES)) == images).all()
            except ValueError as error:
                failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.005)
        archive.close()
        for thread in threads:
            thread.join(60)
        assert len(failures) == 4 and all("closed" in failure for failure in failures)


def test_number_of_threads(path):
    code = """
        import glob, sys, time, kuat
        archive = kuat.KuatArchive(sys.argv[1])
        kuat.set_num_threads(3)
        first = archive.decode_batch(range(9), device="cpu")
        # A thread names itself.
        time.sleep(0.5)
        names = [open(name).read() for name in glob.glob("/proc/self/task/*/comm")]
        print(sum(name.startswith("kuat-") for name in names))
        kuat.set_num_threads(1)
        assert (archive.decode_batch(range(9), device="cpu") == first).all()
        kuat.set_num_threads(0)
        assert (archive.decode_batch(range(9), device="cpu") == first).all()
    """
    found = run(code, path)
    if sys.platform.startswith("linux"):
        assert found == "3\n"
        code = code.replace("kuat.set_num_threads(3)", "")
        assert run(code, path, env={**os.environ, "RAYON_NUM_THREADS": "5"}) == "5\n"
    for wrong in (-1, 2**16):
        with pytest.raises(ValueError):
            kuat.set_num_threads(wrong)
    for wrong in ("1", 1.0, None):
        with pytest.raises(TypeError):
            kuat.set_num_threads(wrong)


FORKED = """
    import os, signal, sys
    signal.alarm(50)
    import numpy as np, kuat
    device = int(sys.argv[2]) if sys.argv[2].isdigit() else sys.argv[2]
    archive = kuat.KuatArchive(sys.argv[1])
    images = archive.decode_batch(range(9), device=device)
    kept = archive.decode_batch([1], device=device, to="dlpack")
    batches = archive._batches(2, device=device)
    epoch = kuat.KuatDataset(archive, 2, device=device).epoch()
    next(batches), next(epoch)
    dropped = archive._batches(2, device=device)
    child = os.fork()
    if child == 0:
        # A child does not inherit it.
        signal.alarm(40)
        try:
            assert (np.from_dlpack(kept) == images[1:2]).all()
            assert (archive.decode(3) == images[3]).all()
            assert (archive.decode_batch(range(9), device="cpu") == images).all()
            if isinstance(device, int):
                # A driver may hang.
                try:
                    archive.decode_batch(range(9), device=device)
                    raise AssertionError("a GPU of the parent's")
                except kuat.Error as error:
                    assert "forked" in str(error) and "spawn" in str(error)
                device = "auto"
                assert archive.device_name() == "cpu"
            assert (archive.decode_batch(range(9), device=device) == images).all()
            for iterator in (batches, epoch):
                try:
                    next(iterator)
                    raise AssertionError("batches of the parent's")
                except RuntimeError as error:
                    assert "forked child" in str(error)
            del dropped, kept
            found = [batch["images"] for batch in kuat.KuatDataset(archive, 2, device=device)]
            assert (np.concatenate(found) == images).all()
            archive.close()
            del batches, epoch, archive
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    # The parent goes on.
    assert len(list(batches)) == 4 and len(list(epoch)) == 4
    assert (archive.decode_batch(range(9), device=device) == images).all()
    print("done")
"""


FORKED_BEFORE = """
    import os, signal, sys
    signal.alarm(50)
    import kuat
    archive = kuat.KuatArchive(sys.argv[1])
    images = archive.decode_batch(range(9), device="cpu")
    kuat.devices()
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        device = int(sys.argv[2])
        os._exit(0 if (archive.decode_batch(range(9), device=device) == images).all() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    print("done")
"""


def test_an_interrupted_import_of_numpy_is_that_interrupt(path):
    code = """
        import sys, kuat
        class Interrupts:
            def find_spec(self, name, *_):
                if name == "numpy":
                    sys.meta_path.remove(self)
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupts())
        try:
            kuat.KuatArchive(sys.argv[1]).decode(0)
        except KeyboardInterrupt:
            print(kuat.KuatArchive(sys.argv[1]).decode(0).dtype)
    """
    assert run(code, path) == "uint8\n"


@pytest.mark.parametrize("device", ["cpu", *(device["index"] for device in DEVICES)])
def test_a_process_may_end_while_batches_are_made(path, device):
    # `run` checks that it does not crash.
    code = """
        import sys, kuat
        device = int(sys.argv[2]) if sys.argv[2].isdigit() else sys.argv[2]
        archive = kuat.KuatArchive(sys.argv[1])
        batches = archive._batches(1, device=device, ahead=100)
        next(batches)
        print("done")
    """
    assert run(code, path, device) == "done\n"


@UNIX
@pytest.mark.parametrize("device", [device["index"] for device in DEVICES])
def test_gpu_in_a_child_of_a_process_that_opened_none(path, device):
    assert run(FORKED_BEFORE, path, device) == "done\n"


@UNIX
@pytest.mark.parametrize("device", ["cpu", "auto", *(str(device["index"]) for device in DEVICES)])
def test_fork_after_decoding(path, device):
    assert run(FORKED, path, device) == "done\n"


FORKED_WHILE_BUSY = """
    import os, signal, sys, threading
    import kuat
    archive = kuat.KuatArchive(sys.argv[1])
    normalized = {"dtype": "float32", "mean": 0.5, "std": 0.25}
    kinds = [{}, {"dtype": "float32"}, {"dtype": "float16", "layout": "NCHW"}, normalized]
    def decode():
        return [archive.decode_batch(range(9), device="cpu", **kind) for kind in kinds]
    expected, end = decode(), threading.Event()
    def work():
        while not end.is_set():
            decode()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            right = all((found == wanted).all() for found, wanted in zip(decode(), expected))
            os._exit(0 if right else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    end.set()
    for thread in threads:
        thread.join()
    print("done")
"""


@UNIX
def test_fork_while_threads_decode(path):
    assert run(FORKED_WHILE_BUSY, path) == "done\n"


WORKERS = """
    import multiprocessing, sys
    import kuat
    archive = kuat.KuatArchive(sys.argv[1])
    def work(ids):
        return archive.decode_batch(ids, device="cpu"), archive.labels(ids)
    def work_with(archive, ids):
        return archive.decode_batch(ids, device="cpu"), archive.labels(ids)
    if __name__ == "__main__":
        images, labels = work(range(9))
        context = multiprocessing.get_context(sys.argv[2])
        for start in range(3):
            with context.Pool(3) as pool:
                ids = [[i, i - 3] for i in range(9)]
                found = pool.map(work, ids) + pool.starmap(work_with, [(archive, i) for i in ids])
        for i, (some, theirs) in zip(ids + ids, found):
            assert (some == images[i]).all() and (theirs == labels[i]).all()
        print("done")
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=UNIX), pytest.param("forkserver", marks=UNIX)])
def test_worker_processes(path, tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(WORKERS))
    command = [sys.executable, script, path, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def long_archive(path, samples=2_000_000):
    """A file of many GB, of one codeword and indices of 0, that takes no room on a disk."""
    sides = {"image_width": 64, "image_height": 64, "channels": 1, "patch_width": 1, "patch_height": 1}
    metadata = {"format": "qvq", "version": 1, "codec": "vq", "index_bits": 8, "samples": samples, **sides}
    length = samples * 64 * 64
    header = {
        "__metadata__": {key: str(value) for key, value in metadata.items()},
        "indices": {"dtype": "U8", "shape": [samples, 64, 64], "data_offsets": [0, length]},
        "codebook": {"dtype": "U8", "shape": [1, 1, 1, 1], "data_offsets": [length, length + 1]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + length + 1)
    return path


INTERRUPTED = """
    import itertools, sys, time, kuat
    archive = kuat.KuatArchive(sys.argv[1])
    def ready(*_):
        print("ready", flush=True)
    def epochs():
        dataset = kuat.KuatDataset(archive, 3, shuffle=True)
        for number, batch in enumerate(batch for epoch in itertools.count() for batch in dataset.epoch(epoch)):
            if number == 20:
                ready()
    def epoch():
        for number, batch in enumerate(archive._batches(1, ahead=0)):
            if number == 20:
                ready()
    def verify():
        ready()
        archive.verify()
    def callback():
        archive.verify(progress=lambda *_: [ready(), time.sleep(60)])
    try:
        globals()[sys.argv[2]]()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
"""


@UNIX
@pytest.mark.parametrize("what", ["epochs", "epoch", "verify", "callback"])
def test_ctrl_c(path, what, tmp_path):
    if what in ("epoch", "verify"):
        # It takes seconds.
        path = long_archive(tmp_path / "long.qvq")
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), path, what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert output.endswith("interrupted\n") and error.rstrip().endswith("KeyboardInterrupt"), (output, error)
    assert process.returncode != 0 and time.monotonic() - start < 10
