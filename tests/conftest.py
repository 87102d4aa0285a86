"""What many tests share: a cache of their own, a small text, Tiny Shakespeare where it can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

PLAY = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

First Citizen:
You are all resolved rather to die than to famish?

"""


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Downloads and token stores of the tests go into a folder that is theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """A text file of a few kilobytes, different enough in each part to be learned from."""
    path = tmp_path / "play.txt"
    path.write_text(
        "".join(f"{PLAY}Citizen {i}:\nResolved, resolved, {i} times.\n\n" for i in range(40)), encoding="utf-8"
    )
    return path
