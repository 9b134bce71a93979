"""`python -m report measure` measures this machine and writes the page; `python -m report page` writes it again."""

import argparse
import json
import sys
from pathlib import Path

from . import collect, page, plots

PAGE = Path("BENCHMARKS.md")
PROGRAMS = ["peers", "cpu", "gpu", "archive"]


def results():
    """Those of all machines, the fullest first."""
    found = []
    for path in sorted(collect.RESULTS.glob("*.json")):
        found.append({**json.loads(path.read_text()), "machine": path.stem})
    if not found:
        sys.exit(f"no results in {collect.RESULTS}; `make bench` measures this machine")
    return sorted(found, key=lambda result: -len(result["rows"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb")
    measure = verbs.add_parser("measure", help="measure this machine, then write the page")
    measure.add_argument("--images", type=Path, required=True, help="photographs, in a folder per class")
    measure.add_argument("--machine", help="a name for the result instead of the CPU's")
    measure.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=PROGRAMS,
        help=f"what to measure, of {','.join(PROGRAMS)}; the machine's other rows stay as they were",
    )
    measure.add_argument("--peers", help="of the peers only these, with commas between")
    measure.add_argument("--rounds", type=int, help="of the peers' turns")
    measure.add_argument("--seconds", type=float, help="of each of the peers' turns, at least")
    verbs.add_parser("page", help="write the page from the results that are there")
    args = parser.parse_args()
    if args.verb == "measure":
        unknown = set(args.only) - set(PROGRAMS)
        if unknown:
            parser.error(f"--only {','.join(sorted(unknown))}: expected some of {','.join(PROGRAMS)}")
        print(collect.collect(args))
    found = results()
    drawn = [plots.draw(result, collect.RESULTS / result["machine"]) for result in found]
    PAGE.write_text(page.page(found, drawn))
    print(PAGE)


if __name__ == "__main__":
    main()
