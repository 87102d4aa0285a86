"""The server is killed in the middle of a text: the page shows that, keeps its text, and continues after a restart."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import ids_of, logits_of, look, opened, wait_for_state, write
from playwright.sync_api import expect
from served import small_decoder


@contextmanager
def process(port: int) -> Iterator[subprocess.Popen]:
    running = subprocess.Popen([sys.executable, str(Path(__file__).with_name("slow_server.py")), str(port)])
    try:
        for _ in range(600):
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None
            time.sleep(0.1)
        yield running
    finally:
        running.kill()
        running.wait()


def test_02_a_killed_server_is_shown_and_work_continues_after_it(tab):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with process(port) as running:
        opened(tab, url)
        write(tab, "the quick", tokens=150)
        expect(tab.locator('[data-index="15"][data-id]')).to_be_visible()
        running.kill()
        wait_for_state(tab, "gone")
    seen = ids_of(tab)
    assert len(seen) > 15 and tab.inner_text("#status-text") == "The server stopped in the middle of the text."
    tab.click("#retry")  # it is still away
    expect(tab.locator("#status-text")).to_have_text("The server does not answer.")
    tab.click('[data-index="3"]')
    expect(tab.locator("#distribution")).to_contain_text("reading …")
    wait_for_state(tab, "gone")
    with process(port):
        tab.fill("#max-tokens", "5")
        tab.click("#retry")
        expect(tab.locator('[data-source="entropy/2"]')).to_be_visible()  # of the last click
        tab.click("#continue")
        wait_for_state(tab, "done")
        assert ids_of(tab)[: len(seen)] == seen and len(ids_of(tab)) == len(seen) + 5
        numbers = look(tab, 8)
        logits_V = logits_of(small_decoder()[0], seen)[7]
        best = int(logits_V.argmax())
        assert numbers[f"logits/7/{best}"] == pytest.approx(float(logits_V[best]), abs=1e-5)
    tab.errors[:] = [line for line in tab.errors if "net::ERR" not in line]  # Chromium's own notes of what was lost
