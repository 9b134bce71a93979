"""Archives damaged and forged at random, a few hundred of those that `make mutations` tries by the thousand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/long"))

from mutations import WAYS, Mutation, examine, judged, originals  # noqa: E402


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return originals(tmp_path_factory.mktemp("valid"))


def test_what_is_wrong_is_told_and_nothing_crashes(valid, tmp_path):
    path = tmp_path / "mutation.qvq"
    ways, judgements, failures = set(), set(), []
    for number in range(400):
        # Another seed than that of the long run.
        mutation = Mutation(1, number, valid)
        path.write_bytes(mutation.data)
        account = examine(path, mutation.original)
        judgements.add(judged(account, mutation))
        ways.add(mutation.way)
        failures += [f"{mutation.name}: {failure}" for failure in account.failures]
    assert not failures
    # None of it was for nothing.
    assert ways == set(WAYS) and len(judgements) >= 5, judgements
