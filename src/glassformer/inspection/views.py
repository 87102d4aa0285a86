"""The base of everything that inspection returns: plain data which can draw itself.

view = gf.next_token(model, tokenizer, "To be, or not to")
view.entropy               a field: a number
view.to_dict()             all of it, for JSON
print(view)                in a terminal, as `glassformer look next` shows it
view                       in a notebook, with no extension and no network
view.plot()                a matplotlib figure
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from glassformer.errors import MissingExtraError
from glassformer.figures import Figure


@dataclasses.dataclass
class View:
    """A dataclass whose fields are the numbers; `figures` draws them. Subclasses define it."""

    def figures(self) -> list[Figure]:
        """What is to be drawn, in order."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON knows them: tensors and arrays are lists, and what is no finite number is None."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def to_html(self) -> str:
        """A page of its own: no script, no request."""
        from glassformer.figures import to_html

        return to_html(self.figures(), type(self).__name__)

    def plot(self) -> Any:
        """A `matplotlib.figure.Figure`.

        Raises:
            MissingExtraError: without the extra `plot`.
        """
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise MissingExtraError("plotting", "plot") from None
        from glassformer.figures import to_matplotlib

        return to_matplotlib(self.figures())

    def _repr_html_(self) -> str:
        from glassformer.figures import html_fragment

        return str(html_fragment(self.figures()))

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from glassformer.figures import to_terminal

        return to_terminal(self.figures(), console, options)

    def __str__(self) -> str:
        from glassformer.figures import to_text

        return to_text(self.figures())


def plain(value: Any) -> Any:
    """Something as JSON knows it.

    >>> plain(torch.tensor([[1.0, float("inf")]])), plain((1, "a")), plain({2: np.float32(0.5)})
    ([[1.0, None]], [1, 'a'], {'2': 0.5})
    """
    if isinstance(value, torch.Tensor):
        return plain(value.detach().float().tolist() if value.is_floating_point() else value.tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
