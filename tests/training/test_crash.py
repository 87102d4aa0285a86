"""kill -9 at random moments and resume: the short form of benchmarks/crash.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "crash.py"


def test_five_kills_lose_nothing():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--kills", "5"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["kills"] == shown["survived"] == 5 == sum(shown["fell"].values())
    assert shown["equal"] == shown["runs"] >= 2
