"""Runs the programs that measure and keeps their rows: benches/results/MACHINE.json."""

import json
import subprocess
import sys
import time
from pathlib import Path

from peers import data

from . import provenance

RESULTS = Path("benches/results")
TARGET = Path("target/bench")


def collect(args):
    """Measures, writes the result and returns its path."""
    print(f"photographs: {args.images}", file=sys.stderr)
    folder = data.prepare(args.images, TARGET.resolve())
    found, classes = data.files(args.images)
    facts = provenance.provenance()
    path = RESULTS / f"{args.machine or provenance.machine(facts)}.json"
    # What is not measured anew stays as it was.
    before = json.loads(path.read_text()) if path.exists() else {"provenance": {}, "rows": []}
    programs = before["provenance"].get("programs", {})

    rows = []
    for name in args.only:
        start = time.monotonic()
        new, failure = run(name, command(name, args, folder))
        run_of = {"run": f"{time.strftime('%Y-%m-%d %H:%M')}"} if name == "peers" else {}
        rows += [{**row, "program": name, **run_of} for row in new]
        programs[name] = {**provenance.moment(), "seconds": round(time.monotonic() - start)}
        if failure:
            programs[name]["failure"] = failure
            print(f"{name}: {failure}", file=sys.stderr)
    # Of some peers alone, the others' rows stay; each says when its run was.
    again = {row["peer"] for row in rows if "peer" in row}
    stays = args.peers and "peers" in args.only
    kept = [
        row
        for row in before["rows"]
        if row["program"] not in args.only or (stays and row["program"] == "peers" and row["peer"] not in again)
    ]

    facts |= provenance.moment() | {"dataset": provenance.dataset(args.images, found, classes), "programs": programs}
    facts["versions"]["peers"] = {row["peer"]: row["version"] for row in kept + rows if "version" in row}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines({"provenance": facts, "rows": kept + rows}))
    return path


def command(name, args, folder):
    """What measures; each prints a line of JSON for each row."""
    peers = [sys.executable, "-m", "peers", "--images", str(args.images), "--json"]
    if name == "peers":
        options = {"--rounds": args.rounds, "--seconds": args.seconds, "--peers": args.peers}
        return [*peers, *(word for option, value in options.items() if value for word in (option, str(value)))]
    if name == "archive":
        return ["cargo", "bench", "--bench", name]
    archives = [folder / f"kuat-{patch}.qvq" for patch in (4, 2)]
    if not all(archive.exists() for archive in archives):
        # The peers' archives, for the same photographs in all programs.
        least = ["--peers", "kuat", "--work", data.U8, "--batch", "64", "--rounds", "1", "--seconds", "0.1"]
        subprocess.run([*peers, *least], stdout=subprocess.DEVNULL, check=True)
    if name == "cpu":
        archives.append(layered(args.images, folder))
    return ["cargo", "bench", "--bench", name, "--", *(str(archive.resolve()) for archive in archives)]


def layered(images, folder):
    """An archive of the same photographs in layers, made unless it is there."""
    archive = folder / "kuat-layers.qvq"
    if not archive.exists():
        options = ["--codec", "layers", "--bytes-per-image", "11000", "--output", str(archive)]
        subprocess.run(["target/release/kuat", "encode", str(images), *options], check=True)
    return archive


def run(name, command):
    """The rows that a program prints, and why it failed."""
    print(f"measuring: {name}", file=sys.stderr)
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            try:
                row = json.loads(line)
                row["table"]
            except (ValueError, KeyError, TypeError):
                print(f"not a row of {name}: {line.rstrip()}", file=sys.stderr)
            else:
                rows.append(row)
    return rows, f"ended with status {program.returncode}" if program.returncode else None


def lines(result):
    """JSON with a line for each row, so that differences between two can be read."""
    rows = ",\n".join("    " + json.dumps(row) for row in result["rows"])
    facts = json.dumps(result["provenance"], indent=2).replace("\n", "\n  ")
    return f'{{\n  "provenance": {facts},\n  "rows": [\n{rows}\n  ]\n}}\n'
