"""Threads and forked workers at once, for a few of the seconds that `make soak` takes minutes of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "tests/long/soak.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("KUAT_TEST_WITHOUT_GPU" in os.environ, reason="opens software adapters")
def test_every_batch_is_right():
    done = subprocess.run([sys.executable, SOAK, "--seconds", "4"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout, done.stderr)
    figures = json.loads(done.stdout)
    assert figures["batches on the CPU"] > 50 and figures["batches on the software adapter"] > 5
    assert figures["epochs left"] > 0 and len(figures["second and last quarter"]) == 5, figures
