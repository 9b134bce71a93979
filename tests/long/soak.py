"""Threads and forked workers that read random batches of two archives, one of each codec, for a while.

Every image is held against a checksum of what numpy decodes by the format's description. Memory, descriptors, threads
and mappings of every process are looked at each second: what they come to in the last quarter of the time must be what
they came to in the second.
"""

import collections
import gc
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np
from common import arguments, checksums, decoded, end, images, items, say, software_adapter

import kuat
from kuat._kuat import live_memory

THREADS, WORKERS = 8, 4
SAMPLES = 64
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
# What may be more in the last quarter than in the second, in all and as a part of it. Allocators keep what they once
# had, in each thread's arena, so memory grows in steps, ever rarer ones.
GROWTH = {"rss_mib": (8, 0.06), "descriptors": (2, 0), "threads": (2, 0), "mappings": (40, 0)}


class Known:
    """An archive and what must come of it."""

    def __init__(self, path):
        self.path = path
        pictures = decoded(path)
        self.checksums = checksums(pictures)
        with kuat.KuatArchive(path) as archive:
            self.codec, self.labels, self.captions = archive.codec, archive.all_labels(), archive.captions(slice(None))
        wanted = items(pictures)
        assert [label for _, label, _ in wanted] == self.labels.tolist()
        assert [caption for *_, caption in wanted] == self.captions


def as_bytes(batch, options):
    """The u8 images, [N, height, width, channels], that a batch was made from."""
    batch = np.asarray(batch)
    assert batch.dtype == options.get("dtype", "uint8")
    if options.get("layout") == "NCHW":
        batch = batch.transpose(0, 2, 3, 1)
    if batch.dtype == np.uint8:
        return batch
    values = batch.astype(np.float64)
    if "mean" in options:
        values = values * options["std"] + options["mean"]
    values *= 255
    rounded = np.rint(values)
    assert np.abs(values - rounded).max(initial=0) < 0.25, "floats that stand for no byte"
    return rounded.astype(np.uint8)


def output(rng):
    """A random way to ask for a batch."""
    options = {"layout": rng.choice(("NHWC", "NCHW"))}
    options["dtype"] = rng.choice(("uint8", "uint8", "float32", "float16"))
    if options["dtype"] != "uint8" and rng.random() < 0.5:
        options |= {"mean": MEAN, "std": STD}
    return options


class Reader:
    """What a thread does, over and over, with archives that others read at the same time."""

    def __init__(self, seed, known, archives, devices):
        self.rng = random.Random(seed)
        self.known, self.archives, self.devices = known, archives, devices
        self.counts = collections.Counter()

    def step(self):
        place = self.rng.randrange(len(self.known))
        self.now, self.archive = self.known[place], self.archives[place]
        operations = (self.batch, self.batch, self.dlpack, self.into, self.epoch, self.one, self.opened, self.columns)
        operation = self.rng.choice(operations)
        operation()
        self.counts[operation.__name__] += 1

    def ids(self):
        return [self.rng.randrange(-SAMPLES, SAMPLES) for _ in range(self.rng.randrange(40))]

    def check(self, ids, batch, options, device):
        found = checksums(as_bytes(batch, options))
        wanted = self.now.checksums[np.asarray(ids, int)]
        if len(found) != len(wanted) or (found != wanted).any():
            raise AssertionError(f"wrong pixels: {self.now.codec}, {options}, {device}, samples {list(ids)}")
        self.counts["batches"] += 1
        self.counts["images"] += len(found)
        self.counts[f"batches on {'the software adapter' if isinstance(device, int) else 'the CPU'}"] += 1

    def batch(self, archive=None):
        ids, options, device = self.ids(), output(self.rng), self.rng.choice(self.devices)
        self.check(ids, (archive or self.archive).decode_batch(ids, device=device, **options), options, device)

    def dlpack(self):
        ids, options, device = self.ids(), output(self.rng), self.rng.choice(self.devices)
        batch = self.archive.decode_batch(ids, device=device, to="dlpack", **options)
        self.check(ids, np.from_dlpack(batch), options, device)

    def into(self):
        ids, options, device = self.ids(), output(self.rng), self.rng.choice(self.devices)
        channels, height, width = self.archive.dimensions
        shape = (channels, height, width) if options["layout"] == "NCHW" else (height, width, channels)
        out = np.empty((len(ids), *shape), options["dtype"])
        assert self.archive.decode_batch(ids, out, device=device, **options) is out
        self.check(ids, out, options, device)

    def epoch(self):
        options, device, size = output(self.rng), self.rng.choice(self.devices), self.rng.randrange(1, 30)
        archive = self.archive if self.rng.random() < 0.5 else self.now.path
        resident = device != "cpu" and self.rng.random() < 0.5
        order = {"shuffle": self.rng.random() < 0.7, "seed": self.rng.randrange(9), "resident": resident}
        dataset = kuat.KuatDataset(archive, size, device=device, **order, **options)
        # Half of the epochs are left in the middle.
        last = self.rng.randrange(2 * len(dataset))
        seen = []
        for number, batch in enumerate(dataset.epoch(self.rng.randrange(3))):
            # A sample is known by its caption.
            ids = [self.now.captions.index(caption) for caption in batch["captions"]]
            assert (batch["labels"] == self.now.labels[ids]).all()
            self.check(ids, batch["images"], options, device)
            seen += ids
            if number == last:
                self.counts["epochs left"] += 1
                return
        assert sorted(seen) == list(range(SAMPLES))

    def one(self):
        sample = self.rng.randrange(SAMPLES)
        self.check([sample], self.archive.decode(sample)[None], {}, "cpu")

    def opened(self):
        check, access = self.rng.choice(("open", "read", "never")), self.rng.choice(("map", "read"))
        with kuat.KuatArchive(self.now.path, check=check, access=access) as archive:
            self.batch(archive)

    def columns(self):
        ids = self.ids()
        assert (self.archive.labels(ids) == self.now.labels[np.asarray(ids, int)]).all()
        assert self.archive.captions(ids) == [self.now.captions[i] for i in ids]
        assert len(self.archive.psnr) == SAMPLES


def work(readers, deadline):
    """Lets readers read, each in a thread of its own; what they did, and what failed."""
    failures = []

    def run(reader):
        try:
            while time.monotonic() < deadline and not failures:
                reader.step()
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        # A driver that hangs is a failure, not the end of the machine.
        thread.join(max(deadline - time.monotonic(), 0) + 120)
        if thread.is_alive():
            failures.append("a thread hangs")
    return sum((reader.counts for reader in readers), collections.Counter()), failures


def worker(seed, known, devices, deadline):
    """Forks a process that reads in two threads; its number, and the file that it leaves its account in."""
    account = tempfile.TemporaryFile("w+")
    process = os.fork()
    if process:
        return process, account
    status = 1
    try:
        # A child that hangs is ended by the system.
        signal.alarm(int(deadline - time.monotonic()) + 180)
        archives = [kuat.KuatArchive(one.path) for one in known]
        counts, failures = work([Reader(seed + i, known, archives, devices) for i in range(2)], deadline)
        json.dump([counts, failures], account)
        account.flush()
        status = 0
    finally:
        os._exit(status)


def look(process):
    """What a process holds."""
    folder = Path("/proc", str(process))
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(folder / "fd")),
        "threads": int(status["Threads"]),
        "mappings": (folder / "maps").read_text().count("\n"),
    }


def main():
    seconds = arguments(__doc__, seconds=600).seconds
    index, adapter = software_adapter()
    devices = ["cpu"] + ([index] if adapter else [])
    with tempfile.TemporaryDirectory() as folder:
        pictures = images(SAMPLES, 96, 72)
        paths = []
        for codec, options in (("vq", {"codebook": 400}), ("layers", {"quality": 60})):
            paths.append(Path(folder, f"{codec}.qvq"))
            options |= {"size": (96, 72), "codec": codec, "classes": ["a", "b", "c"], "progress": False}
            kuat.encode(items(pictures), paths[-1], **options)
        # By the captions, samples are in order; pixels are those of the archive.
        known = [Known(path) for path in paths]
        deadline = time.monotonic() + seconds
        # Two workers open GPUs of their own; two are forked from a process that has used everything.
        workers = {"worker with a device of its own": worker(100, known, devices, deadline)}
        workers["second worker with a device of its own"] = worker(200, known, devices, deadline)
        archives = [kuat.KuatArchive(path) for path in paths]
        for archive in archives:
            for device in devices:
                archive.decode_batch(range(9), device=device)
        workers["worker of a parent with devices"] = worker(300, known, ["cpu", "auto"], deadline)
        workers["second worker of a parent with devices"] = worker(400, known, ["cpu", "auto"], deadline)
        say(f"{THREADS} threads and {WORKERS} workers for {seconds} s, software adapter: {adapter}")

        looks = collections.defaultdict(list)
        start, stopped = time.monotonic(), threading.Event()

        def watch():
            while not stopped.wait(1):
                at = time.monotonic() - start
                if at > seconds:
                    return
                for name, process in {"parent": os.getpid(), **{n: p for n, (p, _) in workers.items()}}.items():
                    try:
                        looks[name].append((at, look(process)))
                    except (OSError, KeyError):
                        continue
                if len(looks["parent"]) % 30 == 0:
                    say(f"{at:.0f} s:", ", ".join(f"{n} {looks[n][-1][1]['rss_mib']:.0f} MiB" for n in looks))

        watcher = threading.Thread(target=watch)
        watcher.start()
        counts, failures = work([Reader(i, known, archives, devices) for i in range(THREADS)], deadline)
        stopped.set()
        watcher.join()
        for name, (process, account) in workers.items():
            _, status = os.waitpid(process, 0)
            account.seek(0)
            text = account.read()
            if status or not text:
                failures.append(f"{name}: status {status}")
                continue
            more, problems = json.loads(text)
            counts.update(more)
            failures += [f"{name}: {problem}" for problem in problems]
        for archive in archives:
            archive.close()
        gc.collect()
        if live_memory():
            failures.append(f"{live_memory()} pieces of memory are held after all was dropped")

    processes = {}
    for name, seen in looks.items():
        quarters = [[], []]
        for at, found in seen:
            if 0.25 <= at / seconds < 0.5 or at / seconds >= 0.75:
                quarters[at / seconds >= 0.5].append(found)
        if not all(quarters):
            continue
        processes[name] = {
            key: [round(statistics.median(look[key] for look in quarter), 1) for quarter in quarters] for key in GROWTH
        }
        for key, (before, after) in processes[name].items():
            # A short run tells nothing about growth.
            some, part = GROWTH[key]
            if seconds >= 300 and after > before + max(some, before * part):
                failures.append(f"{name}: {key} grew from {before} to {after}")
        # How it went, in twentieths of the time.
        every = max(len(seen) // 20, 1)
        processes[name]["rss_mib over time"] = [round(found["rss_mib"]) for _, found in seen[::every]]
    figures = {"seconds": seconds, "adapter": adapter, "threads": THREADS, "workers": WORKERS}
    end({**figures, **dict(sorted(counts.items())), "second and last quarter": processes}, failures)


if __name__ == "__main__":
    main()
