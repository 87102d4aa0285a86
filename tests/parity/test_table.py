"""The parity table in docs/models.md names every family that is read and written, and is made as it says."""

from __future__ import annotations

import re
from pathlib import Path

from families import CASES
from table import NAMES, differences

from glassformer.hub import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ROW = re.compile(r"^\| .+ \| `(\w+)` \| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", re.MULTILINE)


def test_the_page_has_a_row_for_every_family():
    rows = {kind: (int(n), float(a), float(b), float(c)) for kind, n, a, b, c in ROW.findall(PAGE.read_text("utf-8"))}
    assert rows.keys() == NAMES.keys() == FAMILIES.keys() - {"glassformer"}
    cases = [case.config.model_type for case in CASES.values()]
    assert {kind: n for kind, (n, *_) in rows.items()} == {kind: cases.count(kind) for kind in rows}
    assert all(0 < difference < 1e-3 for _, *shown in rows.values() for difference in shown)
    assert "tests/parity/table.py" in PAGE.read_text("utf-8")


def test_differences_are_measured_and_not_assumed(tmp_path: Path):
    found = differences(CASES["gpt_neox"], tmp_path)
    assert all(0 < difference < 1e-4 for difference in found)
