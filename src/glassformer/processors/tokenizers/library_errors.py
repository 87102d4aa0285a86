"""The complaints of the `tokenizers` library about a file or a text, in one line of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from glassformer.errors import GlassformerError, TokenizerError, one_line


@contextlib.contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Its errors as a `TokenizerError`: bare Exceptions, and panics, which are BaseExceptions.

    Args:
        message: the line, with `{}` for its reason.
    """
    try:
        yield
    except (GlassformerError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise TokenizerError(message.replace("{}", one_line(error, most=200))) from error
