"""Encodings that are killed at random moments, a few hundred times.

After each kill the archive must be absent, or the one that was there byte for byte, or the new one whole; beside it
lies nothing but what is documented; and whoever encodes again, goes on or begins anew, gets the bytes of an undisturbed
run.
"""

import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import KUAT, arguments, end, images, say
from PIL import Image

PICTURES, BROKEN = 600, 3
SMALL = ["--size", "32", "--threads", "2"]
# An option of saving after each chunk of images lets most moments leave something to go on with.
SAVING = ["--save-every", "0"]
VQ = [*SMALL, "--patch", "2"]
COMMANDS = {
    "vq": [*VQ, "--codebook", "1000"],
    "vq, saving": [*VQ, "--codebook", "600", *SAVING],
    "vq, skipping": [*VQ, "--codebook", "600", "--on-error", "skip", *SAVING],
    "vq, bounded": [*VQ, "--max-error", "12", *SAVING],
    "vq, of a size": [*VQ, "--target-bytes", "200k", *SAVING],
    "layers": [*SMALL, "--codec", "layers", "--codebook-from", "builtin"],
    "layers, saving": [*SMALL, "--codec", "layers", "--codebook-from", "builtin", "--quality", "90", *SAVING],
    "layers, trained": [*SMALL, "--codec", "layers", "--bytes-per-image", "300", *SAVING],
}
WRITER = """
import sys
from pathlib import Path
import kuat
kuat.set_num_threads(2)
print("ready", flush=True)
codec = {"codebook": 600, "patch": 2} if sys.argv[3] == "vq" else {"codebook": "builtin"}
with kuat.ArchiveWriter(sys.argv[2], size=32, progress=False, **codec) as writer:
    for path in sorted(Path(sys.argv[1]).rglob("*.png")):
        writer.add(path, 1, path.name)
"""


class Kind:
    """A way to encode."""

    def __init__(self, name, folder):
        self.name = name
        self.lasting = name in COMMANDS
        source = folder / ("broken" if "skipping" in name else "pictures")
        if self.lasting:
            few = folder / "few" if "trained" in name else source
            self.command = [KUAT, "encode", few, *COMMANDS[name], "-o"]
        else:
            self.command = [sys.executable, "-c", WRITER, source]
        whole = folder / f"{name}.qvq".replace(" ", "")
        start = time.monotonic()
        process, start = self.start(whole)
        _, error = process.communicate()
        assert process.returncode == 0, error
        self.usual, self.whole = time.monotonic() - start, whole.read_bytes()
        self.skipped = Path(f"{whole}.skipped.json").exists()

    def start(self, target, *options):
        """The process, and when what can be killed began."""
        command = [*self.command, target, *options]
        if not self.lasting:
            command.append(self.name.split()[-1])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        start = time.monotonic()
        if not self.lasting:
            assert process.stdout.readline() == "ready\n"
            start = time.monotonic()
        return process, start


class Failed(Exception):
    pass


def demand(condition, *message):
    if not condition:
        raise Failed(" ".join(map(str, message)))


def phase(target, before, kind):
    """Where a killed encoding was, by what is on disk; checks that all of it may be there."""
    left = {path.name for path in target.parent.iterdir()} - {target.name, f"{target.name}.skipped.json"}
    parts = {name for name in left if name.startswith(".kuat-")}
    partial = Path(f"{target}.partial")
    demand(left - parts <= {partial.name}, "left behind:", left)
    found = target.read_bytes() if target.exists() else None
    replaced = found == kind.whole and found != before
    demand(replaced or found == before, "the archive is neither the old one nor the new one")
    if found is not None:
        verified = subprocess.run([KUAT, "verify", target], capture_output=True, text=True)
        demand(verified.returncode == 0, "it does not verify:", verified.stderr)
    if parts:
        return "with a temporary file left"
    if not partial.exists():
        return "after the end" if replaced else "before the first file"
    inside = {path.name for path in partial.iterdir()}
    demand(inside <= {"archive", "codebook", "journal"}, "in its folder:", inside)
    if replaced:
        return "between the new name and the end"
    journal = (partial / "journal").read_bytes() if "journal" in inside else b""
    lines = [line for line in journal.split(b"\n")[:-1] if line]
    if any(b'"Progress"' in line for line in lines):
        return "with rows kept"
    if len(lines) > 1:
        return "with a codebook kept"
    return "while encoding, nothing kept" if "archive" in inside else "while training"


def trial(kind, mode, folder, rng, counts):
    """Kills an encoding, perhaps several times, and brings it to its end."""
    target = folder / "out.qvq"
    before = None
    if mode == "over another":
        before = next(other.whole for other in KINDS if other is not kind)
        target.write_bytes(before)
    kills = rng.randrange(1, 4) if mode == "again and again" and kind.lasting else 1
    options = []
    for _ in range(kills):
        process, start = kind.start(target, *options)
        delay = rng.uniform(0, 1.05) * kind.usual
        try:
            process.wait(max(start + delay - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        _, error = process.communicate()
        if process.returncode == 0:
            counts["ended before the kill"] += 1
            before = kind.whole
            break
        demand(process.returncode == -signal.SIGKILL, "ended by itself:", process.returncode, error)
        where = phase(target, before, kind)
        counts["kills"] += 1
        counts[where] += 1
        state = (
            "absent" if not target.exists() else "the new one" if target.read_bytes() == kind.whole else "the old one"
        )
        counts[f"archive {state}"] += 1
        if kind.lasting:
            options = ["--resume"]
        if target.exists() and target.read_bytes() == kind.whole:
            before = kind.whole

    # Without --resume, what is kept is not thrown away by mistake.
    kept = where_kept(target)
    if kind.lasting and rng.random() < 0.3:
        process, _ = kind.start(target)
        _, error = process.communicate()
        if kept:
            demand(process.returncode == 2 and "resume" in error, process.returncode, error)
            counts["refused to begin anew"] += 1
        else:
            demand(process.returncode == 0, "encoding anew:", error)
            counts["began anew"] += 1
    process, _ = kind.start(target, *options)
    _, error = process.communicate()
    demand(process.returncode == 0, "the encoding after it:", error)
    demand(target.read_bytes() == kind.whole, "other bytes than without a kill")
    counts["went on to the same bytes" if kept else "made anew, the same bytes"] += 1
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".kuat-")}
    skipped = {f"{target.name}.skipped.json"} if kind.skipped else set()
    demand(left == {target.name} | skipped, "left in the end:", left)


def where_kept(target):
    journal = Path(f"{target}.partial", "journal")
    return journal.exists() and journal.read_bytes().count(b"\n") > 1


def main():
    asked = arguments(__doc__, kills=500, seed=0)
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for number, picture in enumerate(images(PICTURES, 32, 32)):
            for name in ("pictures", "broken", "few"):
                path = folder / name / f"{number % 2}" / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if name != "few" or number < 60:
                    Image.fromarray(picture).save(path)
                if name == "broken" and number < BROKEN:
                    path.write_bytes(b"no image")
        for name in [*COMMANDS, "ArchiveWriter, vq", "ArchiveWriter, layers"]:
            KINDS.append(Kind(name, folder))
            say(f"{name}: {KINDS[-1].usual:.2f} s, {len(KINDS[-1].whole)} bytes")
        total, by_kind, failures = collections.Counter(), {}, []
        while total["kills"] < asked.kills:
            kind = rng.choice(KINDS)
            mode = rng.choice(("fresh", "over another", "again and again"))
            counts = collections.Counter()
            with tempfile.TemporaryDirectory(dir=folder) as place:
                try:
                    trial(kind, mode, Path(place), rng, counts)
                except Failed as failed:
                    failures.append(f"{kind.name}, {mode}: {failed}")
                    say(failures[-1])
            total += counts
            by_kind.setdefault(kind.name, collections.Counter()).update(counts)
            if total["kills"] // 25 > (total["kills"] - counts["kills"]) // 25:
                say(f"{total['kills']} kills")
    end({**dict(total), "by kind": {name: counts["kills"] for name, counts in by_kind.items()}}, failures)


KINDS = []

if __name__ == "__main__":
    main()
