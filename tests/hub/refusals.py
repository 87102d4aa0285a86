"""One line of an error, and what lies in a folder before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glassformer.errors import GlassformerError


def everything(folder: Path) -> dict[str, bytes | None]:
    """The files below a folder, and the folders (None)."""
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def refused(act: Callable[[], Any], folder: Path | None = None, kind: type[GlassformerError] = GlassformerError) -> str:
    """The one line of the error; what is in the folder stays as it was."""
    before = everything(folder) if folder else {}
    with pytest.raises(kind) as error:
        act()
    assert "\n" not in str(error.value) and (folder is None or everything(folder) == before)
    return str(error.value)
