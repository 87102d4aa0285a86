"""A real Chromium for the page's tests. GLASSFORMER_CHROMIUM names one; else Debian's, or what is on the path."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from skips import CHROMIUM, NEEDS_CHROMIUM

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "server")]

from served import models, url  # noqa: E402

__all__ = ["models", "url"]  # fixtures: pytest finds them here


@pytest.fixture(scope="module")  # not longer: while playwright runs, the thread has an event loop, and others want one
def browser() -> Iterator[Any]:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip(NEEDS_CHROMIUM)
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


ICON = "/web/icon.svg"
"""Chromium itself asks for it, some time after an address has changed, perhaps when the server is gone."""


@pytest.fixture
def tab(browser) -> Iterator[Any]:
    """A new tab. `tab.requests`: addresses of its requests; `tab.errors`: errors and warnings of its console, also of
    the Content-Security-Policy; there must be none in the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.requests, page.errors = [], []

    def requested(request) -> None:
        if not request.url.endswith(ICON):
            page.requests.append(request.url)

    def said(line) -> None:
        if line.type in ("error", "warning") and not line.location.get("url", "").endswith(ICON):
            page.errors.append(f"{line.text} ({line.location.get('url')})")

    page.on("request", requested)
    page.on("console", said)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()
    assert page.errors == []


@pytest.fixture
def slow(monkeypatch):
    """An engine that takes its time, so that a browser can see it write."""
    from glassformer.generation import Engine

    step = Engine.step

    def slowly(self):
        time.sleep(0.12)
        return step(self)

    monkeypatch.setattr(Engine, "step", slowly)
