"""Model files from anybody, tampered with: each opens, or is refused in one line, in little memory and time.

Some hundred mutations in a run; `GLASSFORMER_FUZZ=2000 pytest tests/bad_input/test_hostile_models.py` tries so many,
and GLASSFORMER_FUZZ_FIRST other ones. One that failed is looked at with `python tests/bad_input/hostile_worker.py KIND
NUMBER NUMBER+1`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

WORKER = Path(__file__).parent / "hostile_worker.py"
N = int(os.environ.get("GLASSFORMER_FUZZ", "350"))
FIRST = int(os.environ.get("GLASSFORMER_FUZZ_FIRST", "0"))


def opened(kind: str, first: int, last: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Of each kind, how many were refused and how many opened; and what went otherwise. A process that dies is followed
    by another."""
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    while first < last:
        call = [sys.executable, str(WORKER), kind, str(first), str(last)]
        done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "RUST_BACKTRACE": "0"})
        shown = [json.loads(line) for line in done.stdout.splitlines()]
        assert shown, done.stderr
        for line in shown:
            if "was" in line:
                counts.setdefault(line["kind"], Counter())[line["was"]] += 1
                if line["wrong"]:
                    wrong.append(f"{line['kind']} {line['number']}: {line['wrong']}")
        first = shown[-1]["number"] + 1
        if "was" not in shown[-1]:
            wrong.append(f"{kind} {first - 1}: the process died ({done.returncode}): {done.stderr[-300:]}")
    return counts, wrong


def test_tampered_files_open_or_are_refused():
    counts, wrong = opened("all", FIRST, FIRST + N)
    assert not wrong, "\n\n".join(wrong)
    assert len(counts) == 7
    for kind, found in counts.items():  # neither all nor nothing: the mutations are worth something
        assert min(found["refused"], found["opened"]) >= max(1, N // 350), (kind, found)
