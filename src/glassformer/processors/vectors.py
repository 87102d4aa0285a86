"""Vectors of numbers to arrays and back: a check of shape and values.

processor = VectorProcessor(5)
processor.encode([[0.1, 2.0, -1.0, 0.0, 3.5]])    # (1, 5), fp32
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glassformer.errors import UsageError
from glassformer.processors.preprocessor_file import load_fields, save_fields
from glassformer.text_files import JsonError, parse_json

TYPE = "VectorProcessor"


@dataclass(frozen=True)
class VectorProcessor:
    """Sequences of vectors of `size` numbers."""

    size: int

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise UsageError(f"vectors of size {self.size!r}; give a whole number above 0")

    def encode(self, vectors: Any) -> np.ndarray:
        """The array of a sequence of vectors, given as rows or as JSON of them: (T, size), fp32.

        Raises:
            UsageError: it is no JSON, has another shape, or a value that is no finite number.
        """
        if isinstance(vectors, str):
            try:
                vectors = parse_json(vectors)
            except JsonError as error:
                example = json.dumps([[0.5] * min(self.size, 3)])
                raise UsageError(f"vectors as text are JSON, such as {example} ({error})") from None
        try:
            array = np.asarray(vectors, dtype=np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"vectors must be rows of {self.size} numbers each") from None
        if array.ndim != 2 or array.shape[1] != self.size or not np.isfinite(array).all():
            raise UsageError(f"vectors of shape {array.shape}: give finite numbers, (rows, {self.size})")
        return array

    def decode(self, array: Any) -> list[list[float]]:
        """The numbers of an array."""
        return np.asarray(array, dtype=np.float64).tolist()  # type: ignore[no-any-return]

    def arguments(self, sequences: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What a model is called with: vectors (B, T, size) of sequences of one length."""
        return {"vectors_BTI": np.stack(sequences)}

    def names(self, array: np.ndarray) -> list[str]:
        """Each vector by its number."""
        return [f"vector {place}" for place in range(len(array))]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        save_fields(folder, TYPE, asdict(self))


def load_vector_processor(folder: str | os.PathLike[str]) -> VectorProcessor:
    """The processor of a model folder.

    Raises:
        ModelFolderError: it is missing or damaged.
    """
    found = load_fields(folder, TYPE, lambda fields: VectorProcessor(**fields), needed=True)
    assert found is not None
    return found
