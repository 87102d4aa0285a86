"""The page as a product: one cursor, keyboard, both themes, every width (24), live training (22), offline (25).

The numbers are those of GLASS_BOX.md, the list of what the page must do.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from actions import wait_for_state, written
from test_look_inside import TEXT, address, opened
from test_look_route import OPTIONS, OTHERS

from glassformer.views import VIEWS


def test_24_every_view_is_accessible_and_fits_every_width(tab, url):
    found = {}
    for view in sorted(VIEWS.keys() - OTHERS):
        opened(tab, url, address(view, **OPTIONS.get(view, {"text": TEXT})))
        found |= {view: lines} if (lines := findings(tab)) else {}
    assert not found


@pytest.mark.parametrize("panel", ["write", "train"])
def test_24_every_panel_is_accessible_and_fits_every_width(tab: Any, url, panel):
    tab.goto(f"{url}/#{panel}")
    if panel == "write":
        wait_for_state(tab, "idle")
        written(tab, TEXT, tokens=4)
        tab.click('#tokens [data-index="3"]')
        tab.wait_for_selector("#distribution [data-source]")
    assert findings(tab) == []
