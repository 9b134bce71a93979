"""Thousands of archives that are damaged or forged at random, read through Python and through the command.

None may crash the process, take two seconds for a call, end in an error that names nothing, or give pixels, labels or
captions that are not the original's without an error. What has no checksums cannot tell; what was forged, its checksum
made anew, is another archive by its own account: of these, only the first three are asked.
"""

import collections
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import KUAT, arguments, crc32c, decoded, end, header, images, items, say, software_adapter
from helpers import GEOMETRIES, make
from PIL import Image

import kuat

LIMIT = 2.0
# What waits longer, whatever for, is ended.
HANGS = 30.0
# What reading may raise; anything else is a failure, above all a panic.
EXPECTED = (kuat.Error, OSError, ValueError)


class Original:
    """A valid archive, and what it holds."""

    def __init__(self, name, path):
        self.name, self.path, self.data = name, path, path.read_bytes()
        self.pixels = decoded(path)
        with kuat.KuatArchive(path) as archive:
            assert (archive.decode_batch(slice(None), device="cpu") == self.pixels).all()
            self.labels, self.captions = archive.all_labels().tolist(), archive.captions(slice(None))
        self.checked = "header_crc32c" in header(self.data)[0]


def originals(folder):
    """Valid archives of both codecs and of several index widths, with and without checksums."""
    folder = Path(folder)
    paths = {name: make(folder / f"{name}.qvq", GEOMETRIES[name]) for name in ("rgb", "grey", "bytes", "overhanging")}
    for name, channels in (("layers", 3), ("grey layers", 1)):
        paths[name] = folder / f"{name}.qvq"
        options = {"codec": "layers", "size": (40, 24), "channels": channels, "quality": 60, "progress": False}
        kuat.encode(items(images(9, 40, 24, channels)), paths[name], classes=["a", "b", "c"], **options)
    for name in list(paths):
        paths[f"{name}, no checksums"] = path = folder / f"{name}-foreign.qvq"
        path.write_bytes(foreign(paths[name].read_bytes()))
    for bits, dtype in ((16, "U16"), (32, "U32")):
        paths[f"{bits} bits, no checksums"] = path = folder / f"{bits}.qvq"
        path.write_bytes(foreign(paths["bytes"].read_bytes(), bits, dtype))
    return [Original(name, path) for name, path in paths.items()]


def split(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(head, tail, checked=True):
    """An archive of a header and data; its checksum is made anew if it has one."""
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    found = head.get("__metadata__", {})
    if checked and isinstance(found, dict) and isinstance(found.get("header_crc32c"), str):
        digits = f'"header_crc32c":"{found["header_crc32c"]}"'.encode()
        blank = text.replace(digits, b'"header_crc32c":"00000000"')
        crc = crc32c(blank)
        text = blank.replace(b'"header_crc32c":"00000000"', b'"header_crc32c":"%08x"' % crc)
    return len(text).to_bytes(8, "little") + text + tail


def foreign(data, bits=None, dtype=None):
    """An archive as other programs write it: without checksums, its indices perhaps wider."""
    head, tail = split(data)
    head["__metadata__"] = {key: v for key, v in head["__metadata__"].items() if not key.endswith("_crc32c")}
    order = sorted((name for name in head if name != "__metadata__"), key=lambda name: head[name]["data_offsets"])
    pieces, end_ = {"__metadata__": head["__metadata__"]}, 0
    content = b""
    for name in order:
        if name == "checksums":
            continue
        tensor = head[name]
        begin, stop = tensor["data_offsets"]
        piece = tail[begin:stop]
        if name == "indices" and bits:
            piece = np.frombuffer(piece, "u1").astype(f"<u{bits // 8}").tobytes()
            tensor["dtype"], head["__metadata__"]["index_bits"] = dtype, str(bits)
        tensor["data_offsets"] = [end_, end_ + len(piece)]
        end_ += len(piece)
        pieces[name] = tensor
        content += piece
    return joined(pieces, content)


# ---- ways to change an archive: (random numbers, bytes) -> bytes ----


def place(rng, data):
    """A random place; the header, the shorter part, is hit as often as a quarter of all."""
    edge = 8 + int.from_bytes(data[:8], "little")
    return rng.randrange(edge) if rng.random() < 0.25 else rng.randrange(edge, len(data))


def bits_flipped(rng, data):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def bytes_overwritten(rng, data):
    changed = bytearray(data)
    at, length = place(rng, data), rng.choice((1, 4, 64, 1000))
    kind = rng.randrange(3)
    with_ = rng.randbytes(length) if kind == 0 else bytes([0 if kind == 1 else 255]) * length
    changed[at : at + length] = with_[: len(changed) - at]
    return bytes(changed)


def chunk_removed(rng, data):
    at = place(rng, data)
    return data[:at] + data[at + rng.choice((1, 4, 8, 100, 4096)) :]


def chunk_duplicated(rng, data):
    at, length = place(rng, data), rng.choice((1, 4, 8, 100, 4096))
    return data[: at + length] + data[at:]


def chunks_swapped(rng, data):
    length = rng.choice((4, 16, 64, 512))
    a, b = sorted((place(rng, data), place(rng, data)))
    if a + length > b or b + length > len(data):
        return bits_flipped(rng, data)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def truncated(rng, data):
    return data[
        : rng.choice((rng.randrange(len(data)), len(data) - 1, len(data) - rng.randrange(1, 64), place(rng, data)))
    ]


def extended(rng, data):
    return data + rng.choice((b"\0", rng.randbytes(rng.randrange(1, 100)), data, data[:8], bytes(4096)))


def header_length(rng, data):
    length = int.from_bytes(data[:8], "little")
    wrong = rng.choice(
        (
            length + rng.choice((-8, -1, 1, 8, 1000)),
            0,
            2**64 - 1,
            2**63,
            100_000_000,
            len(data),
            len(data) - 8,
            rng.randrange(2**64),
        )
    )
    return (wrong % 2**64).to_bytes(8, "little") + data[8:]


NUMBERS = [2**k + near for k in (1, 2, 3, 4, 5, 8, 16, 25, 31, 32, 53, 63, 64) for near in (-1, 0, 1)] + [0]
ODD = ["", "-1", "01", "1e3", "NaN", "abc", "\0", "\u2603", "9" * 100, "[[]]", '[["luma8.0"]]', "[" * 500, "null"]


def header_edited(rng, data):
    """A field of the header is another, the checksum is not: what a careless program would do."""
    return edited(rng, data, checked=False)


def header_forged(rng, data):
    """A field of the header is another, and the checksum is right again."""
    return edited(rng, data, checked=True)


def edited(rng, data, checked):
    head, tail = split(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        metadata = head.get("__metadata__", {})
        names = [name for name in head if name != "__metadata__"]
        what = rng.randrange(8)
        if what <= 2 and metadata:
            key = rng.choice(list(metadata))
            number = int(metadata[key]) if metadata[key].isdigit() else rng.choice(NUMBERS)
            near = str(max(number + rng.choice((-1, 1, 8)), 0))
            metadata[key] = rng.choice((near, near, str(rng.choice(NUMBERS)), rng.choice(ODD)))
        elif what == 3 and metadata:
            del metadata[rng.choice(list(metadata))]
        elif not names:
            continue
        elif what == 4:
            tensor = head[rng.choice(names)]
            tensor["dtype"] = rng.choice(("U8", "I8", "U16", "U32", "I64", "U64", "F32", "BF16", "X", ""))
        elif what == 5:
            tensor = head[rng.choice(names)]
            shape = tensor["shape"] or [1]
            at = rng.randrange(len(shape))
            tensor["shape"] = rng.choice(
                (shape[:at] + [rng.choice(NUMBERS)] + shape[at + 1 :], shape[::-1], shape + [1], shape[1:], [1] * 300)
            )
        elif what == 6:
            tensor = head[rng.choice(names)]
            tensor["data_offsets"] = [
                max(offset + rng.choice((0, 0, 1, -1, 8, 2**32, 2**63)), 0) for offset in tensor["data_offsets"]
            ]
        else:
            name = rng.choice(names)
            other = rng.choice((*names, "codebook", "header", "unknown", "labels", "luma8.0", "luma4.99"))
            head[other] = head.pop(name)
    return joined(head, tail, checked)


def tensors_swapped(rng, data):
    """Two tensors change places or meanings; the header's checksum is right again."""
    head, tail = split(data)
    a, b = rng.sample([name for name in head if name != "__metadata__"], 2)
    if rng.random() < 0.5:
        head[a], head[b] = head[b], head[a]
    else:
        head[a]["data_offsets"], head[b]["data_offsets"] = head[b]["data_offsets"], head[a]["data_offsets"]
    return joined(head, tail)


def sizes_inflated(rng, data):
    """A size is far larger than the file, or as large as it allows, in metadata and tensors alike."""
    head, tail = split(data)
    metadata = head["__metadata__"]
    factor = rng.choice((2, 100, 2**20, 2**40))
    if rng.random() < 0.5:
        samples = int(metadata["samples"])
        metadata["samples"] = str(samples * factor)
        for tensor in head.values():
            if "shape" in tensor and tensor["shape"] and tensor["shape"][0] in (samples, samples + 1):
                tensor["shape"][0] += samples * (factor - 1)
    else:
        for key in ("image_width", "image_height"):
            metadata[key] = str(min(int(metadata[key]) * factor, 65535))
        if rng.random() < 0.5 and "indices" in head:
            # As much as the file has room for, in patches as large as can be.
            metadata["patch_width"] = metadata["patch_height"] = "16"
    return joined(head, tail)


def hostile(rng, data):
    """Numbers inside a tensor are chosen to lead astray, and all checksums over them are right again."""
    head, tail = split(data)
    metadata = head["__metadata__"]
    name = rng.choice([name for name in head if name not in ("__metadata__", "checksums")])
    begin, stop = head[name]["data_offsets"]
    content = bytearray(tail[begin:stop])
    if not content:
        return bits_flipped(rng, data)
    size = {"U8": 1, "I8": 1, "U16": 2, "U32": 4, "F32": 4, "U64": 8, "I64": 8}[head[name]["dtype"]]
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(len(content) // size) * size
        value = rng.choice((*NUMBERS, rng.randrange(2**64), 2 ** (8 * size) - 1, len(content) // size))
        content[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    tail = tail[:begin] + bytes(content) + tail[stop:]
    if f"{name}_crc32c" in metadata:
        metadata[f"{name}_crc32c"] = f"{crc32c(content):08x}"
    if name in ("indices", "records", "records.offsets") and "checksums" in head:
        tail = with_row_checksums(head, tail)
    return joined(head, tail)


def with_row_checksums(head, tail):
    def of(name, dtype):
        begin, stop = head[name]["data_offsets"]
        return np.frombuffer(tail[begin:stop], dtype)

    if "indices" in head:
        rows = of("indices", "u1").reshape(int(head["__metadata__"]["samples"]), -1)
    else:
        offsets, words = of("records.offsets", "<u8").tolist(), of("records", "<u4")
        rows = [words[min(a, len(words)) : min(b, len(words))] for a, b in zip(offsets, offsets[1:])]
    sums = b"".join(crc32c(row.tobytes()).to_bytes(4, "little") for row in rows)
    begin, stop = head["checksums"]["data_offsets"]
    head["__metadata__"]["checksums_crc32c"] = f"{crc32c(sums):08x}"
    return tail[:begin] + sums + tail[stop:]


# How often each is tried. What its writer did not mean must be told; of a forgery nothing can be.
DAMAGE = {
    bits_flipped: 5,
    bytes_overwritten: 4,
    chunk_removed: 1,
    chunk_duplicated: 1,
    chunks_swapped: 4,
    truncated: 1,
    extended: 1,
    header_length: 1,
    header_edited: 1,
}
FORGERY = {header_forged: 3, tensors_swapped: 1, sizes_inflated: 1, hostile: 5}
WAYS = {**DAMAGE, **FORGERY}


class Mutation:
    """Number so and so of a seed: always the same one."""

    def __init__(self, seed, number, originals):
        rng = random.Random(f"{seed} {number}")
        self.original = rng.choice(originals)
        self.way = rng.choices(list(WAYS), WAYS.values())[0]
        self.data = self.way(rng, self.original.data)
        self.name = f"mutation {number} of seed {seed}: {self.original.name}, {self.way.__name__}"
        # Whether checksums must tell that it is not the original.
        self.told = self.original.checked and self.way in DAMAGE


# ---- what becomes of them in Python ----


def spent(wall, processor):
    """Seconds that a call takes on a machine with nothing else to do, which a busy one does not tell by the clock."""
    return wall if wall <= LIMIT else max(processor, wall - HANGS / 3)


class Account:
    """What one archive came to: who found what, what differs from the original, how long the slowest call took."""

    def __init__(self):
        self.found, self.wrong, self.failures, self.slowest = [], [], [], (0.0, "nothing")

    def call(self, name, function):
        """What a call returns, or None if it raises what it may."""
        start, processor = time.monotonic(), time.process_time()
        try:
            return function()
        except EXPECTED as error:
            if len(str(error)) < 15:
                self.failures.append(f"{name}: an error that says nothing: {error!r}")
            self.found.append(name)
        except BaseException:
            self.failures.append(f"{name}: {traceback.format_exc()}")
            self.found.append(name)
        finally:
            seconds = spent(time.monotonic() - start, time.process_time() - processor)
            self.slowest = max(self.slowest, (seconds, name))
        return None


def examine(path, original, gpu=None, access="map"):
    """Reads all that an archive has, each call in turn."""
    account = Account()
    archive = account.call("open", lambda: kuat.KuatArchive(path, access=access))
    if archive is None:
        return account
    with archive:
        account.call("info", lambda: json.dumps(archive.info()))
        account.call("psnr", lambda: archive.psnr)
        pixels = account.call("decode", lambda: archive.decode_batch(slice(None), device="cpu"))
        labels = account.call("labels", archive.all_labels)
        captions = account.call("captions", lambda: archive.captions(slice(None)))
        if pixels is None:
            # One by one: what is damaged must not hide the others.
            for sample in range(min(len(archive), 20)):
                image = account.call("decode", lambda sample=sample: archive.decode(sample))
                if image is not None and not np.array_equal(image, original.pixels[sample : sample + 1].squeeze(0)):
                    account.wrong.append("pixels")
        elif not np.array_equal(pixels, original.pixels):
            account.wrong.append("pixels")
        if labels is not None and labels.tolist() != original.labels:
            account.wrong.append("labels")
        if (
            captions is not None
            and captions != original.captions
            or captions is None
            and "captions" not in account.found
        ):
            account.wrong.append("captions")
        if gpu is not None:
            there = account.call("decode on a GPU", lambda: archive.decode_batch(slice(None), device=gpu))
            if there is not None and pixels is not None and not np.array_equal(there, pixels):
                account.failures.append("the GPU's pixels are not the CPU's")
            if (there is None) != (pixels is None):
                account.failures.append("the CPU and the GPU disagree on whether there are pixels")
        report = account.call("verify", archive.verify)
        if report is not None and not report["ok"]:
            account.found.append("verify")
    return account


def judged(account, mutation):
    """The class that a mutation belongs to; a wrong value that nobody reported is a failure."""
    told_by = next(
        (name for name in ("open", "decode", "labels", "captions", "psnr", "info", "verify") if name in account.found),
        None,
    )
    # Pixels that are returned are right, whatever `verify` would say; labels and captions are its to check.
    unreported = {"pixels"} & set(account.wrong) if told_by else set(account.wrong)
    if mutation.told and unreported:
        account.failures.append(f"wrong {' and '.join(sorted(unreported))}, and no error")
    if told_by:
        return {"open": "refused when opened", "verify": "reported by verify alone"}.get(told_by, "reported when read")
    if not account.wrong:
        return "harmless: all values are the original's"
    return "another archive by its own checksums" if mutation.original.checked else "wrong values without checksums"


def worker(connection, folder, seed):
    """Examines the mutations whose numbers come in, until there are no more."""
    found = pickle.loads(Path(folder, "originals.pickle").read_bytes())
    while (task := connection.recv()) is not None:
        number, gpu = task
        mutation = Mutation(seed, number, found)
        path = Path(folder, f"worker-{os.getpid()}.qvq")
        path.write_bytes(mutation.data)
        account = examine(path, mutation.original, gpu, access="map" if number % 2 else "read")
        connection.send((judged(account, mutation), account.found, account.wrong, account.failures, account.slowest))
    connection.close()


class Worker:
    """A process that examines archives, and may die of one."""

    def __init__(self, folder, seed):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = CONTEXT.Process(target=worker, args=(theirs, folder, seed), daemon=True)
        self.process.start()
        theirs.close()

    def examine(self, number, gpu):
        """What the process says, or why there is no answer."""
        self.ours.send((number, gpu))
        if not self.ours.poll(HANGS):
            self.process.kill()
            return "hangs"
        try:
            return self.ours.recv()
        except EOFError:
            self.process.join()
            return f"dies with {self.process.exitcode}"

    def end(self):
        self.ours.send(None)
        self.process.join()


CONTEXT = multiprocessing.get_context("spawn")


def through_python(numbers, folder, seed, adapter, tally):
    """Examines mutations in a process that is replaced when it dies."""
    process = Worker(folder, seed)
    for number in numbers:
        gpu = adapter if number % 8 == 0 else None
        answer = process.examine(number, gpu)
        if isinstance(answer, str):
            tally.failure(number, answer)
            process = Worker(folder, seed)
            continue
        tally.take(number, answer, gpu)
    process.end()


class Tally:
    """What all mutations came to."""

    def __init__(self, mutation):
        self.mutation = mutation
        self.kinds = collections.defaultdict(collections.Counter)
        self.counts = collections.Counter()
        self.failures, self.slowest = [], (0.0, "")

    def failure(self, number, text):
        self.failures.append(f"{self.mutation(number).name}: {text}")
        say(self.failures[-1])

    def take(self, number, answer, gpu):
        judgement, _, wrong, failures, slowest = answer
        mutation = self.mutation(number)
        self.kinds[mutation.way.__name__][judgement] += 1
        self.counts[judgement if mutation.original.checked else f"{judgement} (no checksums)"] += 1
        self.counts["decoded on the software adapter"] += gpu is not None
        if slowest[0] > LIMIT:
            failures = [*failures, f"{slowest[1]} took {slowest[0]:.1f} s"]
        for failure in failures:
            self.failure(number, failure)
        self.slowest = max(self.slowest, (slowest[0], slowest[1] + " in Python"))


# ---- what becomes of them in the command ----


def through_command(number, mutation, folder, source, tally):
    """Runs the subcommands that read archives, as users would."""
    path, out = Path(folder, f"command-{number}.qvq"), Path(folder, f"command-{number}.npy")
    path.write_bytes(mutation.data)
    wrong = False
    commands = [["verify", path], ["decode", path, "--out", out]]
    if number % 4 == 0:
        commands += [["info", path], ["sheet", path, "-o", f"{out}.png"]]
        commands += [["encode", source, "--size", "40x24", "--codebook-from", path, "-o", f"{out}.qvq"]]
    if number % 64 == 0:
        commands += [["compare", path, source], ["verify", path, "--against", source]]
    for command in commands:
        status, error, seconds = run([KUAT, "--threads", "1", *command])
        tally.counts["commands"] += 1
        tally.slowest = max(tally.slowest, (seconds, f"kuat {command[0]}"))
        lines = error.strip().splitlines()
        if status not in ((0, 1, 2) if command[0] == "verify" else (0, 2)) or "panicked" in error:
            tally.failure(number, f"kuat {command[0]} ends with {status}: {error}")
        elif status == 2 and len(lines) != 1:
            tally.failure(number, f"kuat {command[0]} says {error!r}")
        if seconds > LIMIT:
            tally.failure(number, f"kuat {command[0]} took {seconds:.1f} s")
        if command[0] == "decode" and status == 0:
            wrong = not np.array_equal(np.load(out), mutation.original.pixels)
    if mutation.told and wrong:
        tally.failure(number, "the command decodes wrong pixels without an error")
    for left in (path, out, Path(f"{out}.png"), Path(f"{out}.qvq")):
        left.unlink(missing_ok=True)


def run(command):
    """Exit status, errors and seconds, as `Account` counts them."""
    with tempfile.TemporaryFile() as error:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=error)
        killer = threading.Timer(HANGS, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = spent(time.monotonic() - start, usage.ru_utime + usage.ru_stime)
        error.seek(0)
        return process.returncode, error.read().decode(errors="replace"), seconds


def main():
    asked = arguments(__doc__, number=10_000, seed=0)
    index, adapter = software_adapter()
    with tempfile.TemporaryDirectory() as folder:
        found = originals(folder)
        Path(folder, "originals.pickle").write_bytes(pickle.dumps(found))
        source = Path(folder, "source", "a")
        source.mkdir(parents=True)
        for number, picture in enumerate(images(9, 40, 24)):
            Image.fromarray(picture).save(source / f"{number}.png")
        say(f"{asked.number} mutations of {len(found)} archives; software adapter: {adapter}")
        tally = Tally(lambda number: Mutation(asked.seed, number, found))
        workers = os.cpu_count() or 1
        numbers = range(asked.number)
        start = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            python = [
                pool.submit(through_python, numbers[i::workers], folder, asked.seed, index, tally)
                for i in range(workers)
            ]
            [future.result() for future in python]
        say(f"through Python: {time.monotonic() - start:.0f} s, {len(tally.failures)} failures")

        def one(number):
            through_command(number, tally.mutation(number), folder, source.parent, tally)
            if number % 1000 == 999:
                say(f"{number + 1} through the command, {len(tally.failures)} failures")

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, numbers))
    figures = {
        "mutations": asked.number,
        "seed": asked.seed,
        "archives": len(found),
        "adapter": adapter,
        "seconds": round(time.monotonic() - start),
        **dict(sorted(tally.counts.items())),
        "slowest call": f"{tally.slowest[0]:.2f} s: {tally.slowest[1]}",
        "by kind": {kind: dict(sorted(counts.items())) for kind, counts in sorted(tally.kinds.items())},
    }
    end(figures, tally.failures)


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    main()
