"""What the documents say of the code is true."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_attacks_name_exists():
    sources = [*ROOT.glob("src/**/*.rs"), *ROOT.glob("tests/**/*.rs"), *ROOT.glob("tests/*.py")]
    code = "\n".join(path.read_text() for path in [*sources, *ROOT.glob("python/tests/*.py")])
    tests = set(re.findall(r"^\s*(?:fn|def) (\w+)\(", code, re.MULTILINE))
    rows = [line for line in (ROOT / "ATTACKS.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row != "| attack | rule | test |"]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])
        assert named or "no test:" in row, f"no test, and no word of it: {row}"
        assert tests.issuperset(named), f"{set(named) - tests} of {row}"
