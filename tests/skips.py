"""Skipped tests: counted by reason at the end of a run, and those whose predecessor did not run say so."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, (os.environ.get("GLASSFORMER_CHROMIUM"), *map(shutil.which, ("chromium", "google-chrome")))), None
)
NEEDS_CHROMIUM = "needs Chromium: apt-get install chromium, or name one in GLASSFORMER_CHROMIUM"
NEEDS_COMPILER = "needs a C++ compiler: apt-get install g++"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each reason: how many tests, and how many files that could not even be read without a package."""
    tests: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        (files if isinstance(report, pytest.CollectReport) else tests)[_reason(report)] += 1
    for reason in sorted(tests.keys() | files.keys(), key=lambda r: (-tests[r], -files[r], r)):
        counts = [(tests[reason], "test"), (files[reason], "file")]
        shown = " and ".join(f"{n} {noun}{'s' if n > 1 else ''}" for n, noun in counts if n)
        terminalreporter.write_line(f"skipped {shown}: {reason}")


def _reason(report: Any) -> str:
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ").splitlines()[0]
    missing = re.match(r"could not import '([\w.]+)'", reason)
    return f"needs the package {missing[1].partition('.')[0]}" if missing else reason


class Commands:
    """The commands of a page in their order, each of which may use what an earlier one made.

    A command makes the name behind `--out` or `pull`. `needs` skips a test whose maker did not succeed in this run, so
    that a page whose first command fails shows one failure and its cause.
    """

    def __init__(self, lines: Sequence[str]):
        self._makers = {
            made[1]: (position, line)
            for position, line in reversed(list(enumerate(lines)))
            if (made := re.search(r"(?:--out|glassformer pull) (\S+)", line))
        }
        self._lines = list(lines)
        self._succeeded: set[str] = set()

    def needs(self, text: str) -> None:
        """Skip unless everything that `text` (a command or other code behind all of them) names has been made."""
        here = self._lines.index(text) if text in self._lines else len(self._lines)
        for name, (position, maker) in self._makers.items():
            named = re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w.-])", text)
            if named and position < here and maker not in self._succeeded:
                pytest.skip(f"needs {name}, which `{maker}` makes; that was skipped, failed or not selected")

    def succeeded(self, line: str) -> None:
        """Note that what this command makes is there."""
        self._succeeded.add(line)
