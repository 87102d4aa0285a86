"""preprocessor_config.json of the processors that no other program has: a type, and the fields that make it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from glassformer.errors import ModelFolderError, UsageError, one_line
from glassformer.files import write_json
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
MAX_JSON_BYTES = 16 << 20
Made = TypeVar("Made")


def save_fields(folder: str | os.PathLike[str], kind: str, fields: Mapping[str, Any]) -> None:
    """Write the file.

    Args:
        kind: the `processor_type`.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_json(Path(folder) / FILE, {"processor_type": kind, **fields})


def load_fields(
    folder: str | os.PathLike[str], kind: str, make: Callable[[dict[str, Any]], Made], *, needed: bool = False
) -> Made | None:
    """What `make` makes of the fields; None where there is no file.

    Args:
        needed: no file is a mistake. make: may raise what damaged fields cause: UsageError, TypeError, ValueError,
            KeyError, AttributeError, OverflowError.

    Raises:
        ModelFolderError: the file is damaged, or of another type.
    """
    file = Path(folder) / FILE
    if not needed and not file.is_file():
        return None
    given = read_json(file, ModelFolderError, most=MAX_JSON_BYTES)
    if given.pop("processor_type", None) != kind:
        raise ModelFolderError(f"{file}: no {kind}; copy the folder again, whole")
    try:
        return make(given)
    except (UsageError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ModelFolderError(f"{file}: {one_line(error, most=200)}; copy the folder again, whole") from None
