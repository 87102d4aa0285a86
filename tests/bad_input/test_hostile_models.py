"""Model files from anybody, tampered with: each opens, or is refused in one line; little memory, little time, no crash.

Some hundred mutations in a run; `GLASSFORMER_FUZZ=2000 pytest tests/bad_input/test_hostile_models.py` tries so many of
each kind. One that failed is looked at with `python tests/bad_input/hostile_worker.py KIND NUMBER NUMBER+1`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "hostile_worker.py"
N = int(os.environ.get("GLASSFORMER_FUZZ", "80"))  # of each kind
FIRST = int(os.environ.get("GLASSFORMER_FUZZ_FIRST", "0"))


def opened(kind: str, first: int, last: int) -> tuple[dict[str, int], list[str]]:
    """How many were refused, how many opened, and what went otherwise. A process that dies is followed by another."""
    counts: dict[str, int] = {"refused": 0, "opened": 0}
    wrong: list[str] = []
    while first < last:
        call = [sys.executable, str(WORKER), kind, str(first), str(last)]
        done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "RUST_BACKTRACE": "0"})
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert told, done.stderr
        for line in told:
            if "was" in line:
                counts[line["was"]] += 1
                if line["wrong"]:
                    wrong.append(f"{kind} {line['number']}: {line['wrong']}")
        first = told[-1]["number"] + 1
        if "was" not in told[-1]:
            wrong.append(f"{kind} {first - 1}: the process died ({done.returncode}): {done.stderr[-300:]}")
    return counts, wrong


@pytest.mark.parametrize("kind", ["gguf", "weights", "tokenizer", "tokenizer_config", "config", "sizes"])
def test_tampered_files_open_or_are_refused(kind: str):
    counts, wrong = opened(kind, FIRST, FIRST + N)
    assert not wrong, "\n\n".join(wrong)
    assert min(counts.values()) > N // 50, counts  # neither all nor nothing: the mutations are worth something
