"""Measures kuat and its peers on one machine, in one run, in turn: `python -m peers --images FOLDER`.

Every peer makes the same batches: the photographs at 224x224 in a random order of each epoch, as bytes or as normalised
floats. Before anything is timed an epoch of each is checked. Then they take turns for some rounds; medians count.
Prints a table, or with --json a line of JSON for each row, those that could not be measured with the reason.
"""

import argparse
import json
import select
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from . import PEERS, data
from .data import F32, U8

# Longer than any question takes; a peer that hangs must not hold up the others.
PATIENCE_S = 600


class Process:
    """A peer's process in its virtual environment."""

    def __init__(self, name, work):
        self.name = name
        folder = work / f"venv-{name}"
        missing = work / f"venv-{name}.missing"
        self.process = None
        if missing.exists() or not (folder / "bin/python").exists():
            self.error = missing.read_text().strip() if missing.exists() else "its virtual environment was not made"
            return
        self.log = work / f"{name}.log"
        command = [folder / "bin/python", "-m", f"{__package__}.worker", name]
        with self.log.open("w") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self.process = subprocess.Popen(command, text=True, **pipes)

    def ask(self, verb, **question):
        """The answer of the process; "error" in it says why there is none."""
        if self.process is None:
            return {"error": self.error}
        try:
            self.process.stdin.write(json.dumps({"do": verb, **question}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self.ended("its process has ended")
        if not select.select([self.process.stdout], [], [], PATIENCE_S)[0]:
            return self.ended(f"no answer in {PATIENCE_S} s")
        line = self.process.stdout.readline()
        return json.loads(line) if line else self.ended("its process has ended")

    def ended(self, why):
        self.process.kill()
        self.process = None
        self.error = f"{why}; see {self.log}"
        return {"error": self.error}

    def close(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


def measure(args):
    """A row for each peer, kind of work and size of batch."""
    work = args.target.resolve()
    folder = data.prepare(args.images, work)
    common = {"images": str(args.images.resolve()), "folder": str(folder), "workers": args.workers}
    common |= {"works": args.work, "batches": args.batch}
    processes = [Process(name, work) for name in args.peers]
    try:
        rows = []
        for process in processes:
            answer = process.ask("list", **common)
            if "error" in answer:
                rows.append((None, None, {"peer": PEERS[process.name], "missing": answer["error"]}))
            rows += [(process, number, row) for number, row in enumerate(answer.get("rows", []))]

        with tqdm(rows, "checking", unit="row") as progress:
            for process, number, row in progress:
                progress.set_postfix_str(row["peer"])
                if process:
                    answer = process.ask("check", row=number)
                    row.update({"missing": answer["error"]} if "error" in answer else answer)

        turns = [(*each, []) for each in rows if "missing" not in each[2]]
        with tqdm(total=args.rounds * len(turns), desc="measuring", unit="turn") as progress:
            for _ in range(args.rounds):
                for process, number, row, speeds in turns:
                    progress.set_postfix_str(row["peer"])
                    answer = process.ask("measure", row=number, seconds=args.seconds)
                    if "error" in answer:
                        row["missing"] = answer["error"]
                    else:
                        speeds.append(round(answer["images_per_s"], 1))
                    progress.update()
        for _, _, row, speeds in turns:
            if "missing" not in row:
                row |= {"images_per_s": statistics.median(speeds), "rounds": speeds}
    finally:
        for process in processes:
            process.close()
    return [{"table": "peers", **row} for _, _, row in rows]


def table(rows):
    lines = [f"{'':34} {'work':10} {'batch':>5} {'images/s':>9} {'least':>8} {'most':>8} {'bytes':>7}  checked"]
    for row in rows:
        name = f"{row['peer']:34} {row.get('work', ''):10} {row.get('batch', ''):>5}"
        if "missing" in row:
            lines.append(f"{name} not available: {row['missing']}")
            continue
        speeds = f"{row['images_per_s']:9,.0f} {min(row['rounds']):8,.0f} {max(row['rounds']):8,.0f}"
        lines.append(f"{name} {speeds} {row['bytes_per_image']:7,.0f}  {row['checked']}")
    return "\n".join(lines)


def listed(kind):
    return lambda text: [kind(item) for item in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with a folder per class")
    parser.add_argument("--target", type=Path, default=Path("target/bench"), help="where everything made is kept")
    parser.add_argument("--peers", type=listed(str), default=list(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--work", type=listed(str), default=[U8, F32], help=f'of "{U8},{F32}"')
    parser.add_argument("--batch", type=listed(int), default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="the least time of a turn")
    parser.add_argument("--workers", type=int, default=2, help="processes or threads of each peer")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    args = parser.parse_args()
    unknown = set(args.peers) - set(PEERS) | set(args.work) - {U8, F32}
    if unknown:
        parser.error(f"not known: {', '.join(sorted(unknown))}; peers are {', '.join(PEERS)}; work is {U8}, {F32}")
    rows = measure(args)
    print("\n".join(json.dumps(row) for row in rows) if args.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
