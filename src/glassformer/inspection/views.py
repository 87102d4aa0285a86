"""The base of everything that inspection returns: plain data which can draw itself.

view = gf.next_token(model, tokenizer, "To be, or not to")
view.entropy               a field: a number
view.to_dict()             all of it, for JSON
print(view)                in a terminal, as `glassformer look next` shows it
view                       in a notebook, with no extension and no network
view.plot()                a matplotlib figure
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glassformer.errors import MissingExtraError
from glassformer.figures import Figure
from glassformer.figures.json import plain


@dataclass
class View:
    """A dataclass whose fields are the numbers; `figures` draws them. Subclasses define it."""

    def figures(self) -> list[Figure]:
        """What is to be drawn, in order."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them: tensors and arrays are lists; NaN and infinities are None."""
        return plain(self)  # type: ignore[no-any-return]

    def to_html(self) -> str:
        """A page of its own, in one file: figures that answer the pointer and the keys, and no request."""
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
        from glassformer.figures.interactive import interactive

        figures = self.figures()
        return str(interactive(figures, type(self).__name__, html_fragment(figures)))

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from glassformer.figures import to_terminal

        return to_terminal(self.figures(), console, options)

    def __str__(self) -> str:
        from glassformer.figures import to_text

        return to_text(self.figures())
