"""A notebook: pages that outlast the context window.

The model writes and reads pages with two tools. What it writes in a scratchpad (`scratchpad.py`), and turns of the chat
that no longer fit into the window, become pages as well, so that it can read them again.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from glassformer.errors import UsageError
from glassformer.scratchpad import scratchpads_of

MAX_PAGES, MAX_CHARACTERS = 1000, 4000
LISTED = 50  # characters of a page in the list


class Notebook:
    """Pages, numbered from 1."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def notebook_write(self, text: Annotated[str, Field(min_length=1)]) -> str:
        """Write a page into your notebook, to be read again later."""
        if len(self.pages) >= MAX_PAGES:
            raise UsageError(f"the notebook is full: {MAX_PAGES} pages")
        if len(text) > MAX_CHARACTERS:
            raise UsageError(f"a page has {MAX_CHARACTERS} characters at most; write several")
        self.pages.append(text)
        return f"page {len(self.pages)}"

    def notebook_read(self, page: Annotated[int, Field(ge=0, description="0: the list of pages")] = 0) -> str:
        """Read a page of your notebook, or the list of its pages."""
        if page > len(self.pages):
            raise UsageError(f"there is no page {page}; there are {len(self.pages)}")
        if page:
            return self.pages[page - 1]
        rows = (f"{n}: {' '.join(text.split())[:LISTED]}" for n, text in enumerate(self.pages, 1))
        return "\n".join(rows) or "the notebook is empty"

    def keep_scratchpads(self, question: str, answer: str) -> None:
        """Every scratchpad of an answer becomes a page."""
        for pad in scratchpads_of(answer):
            self._keep(pad)

    def keep_turn(self, role: str, content: str) -> None:
        """A turn that left the window becomes a page."""
        self._keep(f"{role}: {content}")

    def _keep(self, text: str) -> None:
        """As pages; the oldest go when the notebook is full."""
        self.pages += [text[i : i + MAX_CHARACTERS] for i in range(0, len(text), MAX_CHARACTERS)]
        del self.pages[: max(0, len(self.pages) - MAX_PAGES)]
