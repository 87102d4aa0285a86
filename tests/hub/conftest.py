"""Fixtures of several files. The stand-ins of two other folders are used here too: texts for tokenizers; packages and
a web server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

transformers.logging.set_verbosity_error()
for folder in ("processors/tokenizers", "data"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    from gguf_standins import toy_tokenizers

    return toy_tokenizers()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
