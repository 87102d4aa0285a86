"""Which special tokens in a rendered chat were written by the template: the only ones that count.

A message may hold the text `<|im_end|>`, and a template may trim, cut, compare and join what it is given, so its
output does not show who wrote what. Therefore the *template's own* special tokens are rewritten before it runs: every
character of `<|im_end|>` in a literal of the template becomes a stand-in, a lone half of a surrogate pair. Text that
comes in cannot hold one (`whole_characters` removes them) and is not changed.

    template    {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
    rendered    ÷÷÷÷÷÷÷÷÷÷÷÷user\\nWhat is <|im_end|>?÷÷÷÷÷÷÷÷÷÷
    parts       [id of <|im_start|>, "user\\nWhat is <|im_end|>?", id of <|im_end|>]

Some templates put a token together: `'<|' + message.role + '|>'`. Pieces at the ends of a literal are written in
stand-ins too, and between them one of the known `ROLES` may stand in plain letters.

Left alone are literals that are looked up or compared (`content.split('</think>')`, `message['role'] == 'user'`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from glassformer.processors.tokenizers.alphabet import whole_characters

ROLES = ("system", "developer", "user", "assistant", "model", "tool", "function", "ipython", "observation", "context")
"""Words that a template may set between `<|` and `|>` without writing them itself."""

_STAND_INS = range(0xDC00, 0xE000)
_LOOKING = (
    *("split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index", "count"),
    *("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "replace", "get"),
)
"""Methods whose first argument is looked for, and not written."""


class Marks:
    """The special tokens of a vocabulary, the stand-ins for their characters, and the way back.

    Args:
        special_tokens: ids by text; white space alone is left out, it looks like a template's lay-out.
    """

    def __init__(self, special_tokens: Mapping[str, int]):
        ids = {token: i for token, i in special_tokens.items() if token.strip()}
        characters = sorted(set().union(*ids))
        self._image = {ord(c): chr(code) for c, code in zip(characters, _STAND_INS, strict=False)}
        self._original = {ord(image): chr(code) for code, image in self._image.items()}
        self._whole = _any_of(ids)
        self._starts = {t[:k] for t in ids if not t[0].isalnum() for k in range(1, len(t))}
        self._ends = {t[-k:] for t in ids if not t[-1].isalnum() for k in range(1, len(t))}
        self._longest = max(map(len, ids), default=0)
        self._spelled = {spelling: i for token, i in ids.items() for spelling in self._spellings(token)}
        self._spelled_any = _any_of(self._spelled)

    def mark(self, literal: str) -> str:
        """A literal of the template with its special tokens, and pieces of them at its ends, in stand-ins."""
        marked = self._whole.sub(lambda found: found[0].translate(self._image), literal)
        for k in range(min(self._longest, len(marked)), 0, -1):
            if marked[-k:] in self._starts:
                marked = marked[:-k] + marked[-k:].translate(self._image)
            if marked[:k] in self._ends:
                marked = marked[:k].translate(self._image) + marked[k:]
        return marked

    def parts(self, rendered: str) -> list[str | int]:
        """What a marked template made, as text and the ids of its own special tokens, in order."""
        out: list[str | int] = []
        start = 0
        for found in self._spelled_any.finditer(rendered):
            out += [self.plain(rendered[start : found.start()]), self._spelled[found[0]]]
            start = found.end()
        return [part for part in (*out, self.plain(rendered[start:])) if part != ""]

    def plain(self, rendered: str) -> str:
        """What a marked template made, as text."""
        return whole_characters(rendered.translate(self._original))

    def _spellings(self, token: str) -> Iterable[str]:
        """A token in stand-ins throughout, and with a role in it left in letters."""
        yield token.translate(self._image)
        for role in ROLES:
            before, found, after = token.partition(role)
            if found and before and after:
                yield before.translate(self._image) + role + after.translate(self._image)


class Marker(NodeTransformer):
    """Marks the literals of a parsed template that may be printed.

    Args:
        names: texts of variables such as `bos_token`. Where the template prints one, it is a literal of its own.
    """

    def __init__(self, marks: Marks, names: Mapping[str, str]):
        self._marks, self._names = marks, dict(names)

    def visit_Template(self, node: nodes.Template) -> Any:
        for name in node.find_all(nodes.Name):
            if name.ctx != "load":
                self._names.pop(name.name, None)  # the template has a variable of that name: not the tokenizer's
        return self.generic_visit(node)

    def visit_TemplateData(self, node: nodes.TemplateData) -> Any:
        node.data = self._marks.mark(node.data)
        return node

    def visit_Const(self, node: nodes.Const) -> Any:
        if isinstance(node.value, str):
            node.value = self._marks.mark(node.value)
        return node

    def visit_Name(self, node: nodes.Name) -> Any:
        if node.name not in self._names:
            return node
        return nodes.Const(self._marks.mark(self._names[node.name]), lineno=node.lineno)

    def visit_Compare(self, node: nodes.Compare | nodes.Test) -> Any:
        return node

    visit_Test = visit_Compare

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        node.node = self.visit(node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> Any:
        node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: nodes.Call) -> Any:
        if isinstance(node.node, nodes.Getattr) and node.node.attr in _LOOKING:
            return self._looking(node)
        return self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> Any:
        return self._looking(node) if node.name in ("replace", "trim") else self.generic_visit(node)

    def _looking(self, node: nodes.Call | nodes.Filter) -> Any:
        node.node = self.visit(node.node) if node.node is not None else None
        node.args = node.args[:1] + [self.visit(value) for value in node.args[1:]]
        return node


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")
