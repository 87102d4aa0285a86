"""Scratchpads: what a model writes for itself before it answers.

    <scratchpad>3+4+0=07,8+7+0=15,5+2+1=08</scratchpad>857

Nye et al. 2021, https://arxiv.org/abs/2112.00114. The marks are plain text, so that any tokenizer has them.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<scratchpad>", "</scratchpad>"
_PAD = re.compile(f"{OPEN}(.*?)(?:{CLOSE}|$)", re.DOTALL)


def scratchpads_of(text: str) -> list[str]:
    """The contents of the scratchpads of a text.

    >>> scratchpads_of("<scratchpad>2+2=4</scratchpad>4")
    ['2+2=4']
    """
    return [found.strip() for found in _PAD.findall(text) if found.strip()]


def answer_of(text: str) -> str:
    """A text without its scratchpads; one that is never closed reaches to the end.

    >>> answer_of("<scratchpad>2+2=4</scratchpad>4"), answer_of("<scratchpad>2+2")
    ('4', '')
    """
    return _PAD.sub("", text).strip()
