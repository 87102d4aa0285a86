"""Where a model's parameters are: the tally of 3Blue1Brown's lectures, and what it leaves out.

print(parameters("gpt3"))       175,181,291,520 in 27,938 matrices, as it was counted there
print(parameters(model))        every number of a model, to the last one
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.figures import Column, Figure, Note, Table
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.inspection.weights import is_compressed
from glassformer.models import SIZES, ModelConfig
from glassformer.models.counts import model_on_meta
from glassformer.models.parts import PARTS, Piece, letters, pieces
from glassformer.renamed import old_arguments
from glassformer.view_options import Option, Size

LECTURE = ("embedding", "key", "query", "value", "output", "up", "down", "unembedding")
"""The eight kinds of matrices of the lecture ("Attention in transformers" and "How might LLMs store facts"), in its
order."""
VECTORS = ("norms", "biases", "sinks", "class token")
NAMES = {"up": "up-projection", "down": "down-projection", "gate": "gate"}
WORDS = {
    "C": "d_embed", "V": "n_vocab", "T": "n_positions", "L": "n_layers", "H": "n_heads", "K": "n_kv_heads",
    "D": "d_query", "F": "n_neurons", "E": "n_experts", "G": "n_segments", "N": "n_classes", "R": "n_buckets",
    "P": "patch_size", "channels": "n_channels", "mels": "n_mels",
}  # fmt: skip
"""The lecture's names of the sizes, and names like them for those that it has no use for."""


@dataclass
class PartCount:
    """One kind of matrices or vectors."""

    part: str
    stack: str  # "encoder" or "decoder" where there are both
    formula: str  # how many there are, in the lecture's words
    numbers: str  # the same in this model's numbers
    matrices: int  # how many (of query, key and value one a head, as in the lecture); of vectors how many vectors
    parameters: int  # the numbers in them
    counted: int  # 0 if the tensor is shared
    shared_with: str | None  # the parameter whose tensor this one is, if it is none of its own
    in_lecture: bool  # it is one of the eight kinds of the lecture

    @property
    def name(self) -> str:
        """What it is called where it is shown."""
        return f"{self.stack} {NAMES.get(self.part, self.part)}".strip()

    @property
    def count(self) -> str:
        """How it is counted; numbers alone where there are no words."""
        return self.numbers if self.formula == self.numbers else f"{self.formula} = {self.numbers}"


@dataclass
class ParametersView(View):
    """A tally."""

    name: str
    total: int  # each parameter once: `sum(p.numel() for p in model.parameters())`
    lecture_total: int  # the eight kinds of the lecture alone; a shared table counts wherever it is used
    lecture_matrices: int
    parts: list[PartCount]  # the eight kinds in the lecture's order, then the others
    compressed: bool = False  # the model holds its matrices in 8 or 4 bits, and is counted as it was before
    sizes: dict[str, int] | None = None  # n_embd, n_layer and n_head, where there is one stack

    def figures(self) -> list[Figure]:
        inside = [part for part in self.parts if part.in_lecture]
        beyond = [part for part in self.parts if not part.in_lecture]
        shared = sum(part.parameters - part.counted for part in self.parts)
        rows: list[Any] = [self._row(part) for part in inside]
        if inside:
            rows.append(("the lecture's eight kinds", self.lecture_matrices, self.lecture_total, None))
        marked = {len(rows) - 1}
        rows += [self._row(part) for part in beyond]
        if shared:
            rows.append(("shared, and so counted once", None, -shared, None))
        rows.append(("all parameters", None, self.total, None))
        marked.add(len(rows) - 1)
        counts = (Column("part"), Column("matrices", "count"), Column("parameters", "count"))
        made: list[Figure] = [
            Table(
                f"{self.name}: {self.total:,} parameters",
                (*counts, Column("of all", "share", role="weights")),
                rows,
                frozenset(marked),
            ),
            Table(
                "How they are counted",
                (Column("part"), Column("sizes")),
                [(part.name, part.count) for part in self.parts],
            ),
        ]
        if self.sizes:
            made.append(Table("Sizes", (Column("of"), Column("now", "count")), list(self.sizes.items())))
        return [*made, Note(self._note(shared))] if inside else made

    def _row(self, part: PartCount) -> tuple[Any, ...]:
        share = part.counted / self.total if part.counted else None
        return part.name, None if part.part in VECTORS else part.matrices, part.parameters, share

    def _note(self, shared: int) -> str:
        text = (
            "Query, key and value are one matrix a head; the output matrices of all heads of a layer are one (the "
            "lecture's \"value-up\"). Norms, biases and positions are left out of the lecture's sum."
        )
        if shared:
            for table in dict.fromkeys(p.shared_with for p in self.parts if p.shared_with):
                users = " and the ".join(p.name for p in self.parts if p.shared_with == table)
                text += f" Here {table} also serves as the {users}, and counts once;"
            text += " in the lecture each has its own."
        if self.compressed:
            text += " The weights are kept in fewer bits; counted is what they stand for."
        return text


@old_arguments(what="model_or_size")
@view("glassformer look parameters gpt3", "glassformer look parameters gpt2 --layers 24")
def parameters(
    model_or_size: Any,
    *,
    size: Size = None,
    n_embd: Annotated[int | None, Option("Count it with this width d.", ge=8, le=16384, slider=8, flag="width")] = None,
    n_layer: Annotated[int | None, Option("... this many layers.", ge=1, le=128, slider=1, flag="layers")] = None,
    n_head: Annotated[
        int | None, Option("... this many heads, of d / heads numbers.", ge=1, le=128, slider=1, flag="heads")
    ] = None,
) -> ParametersView:
    """Count the parameters of a model, of a configuration, or of a size by name ("gpt2", "gpt3").

    Only sizes are used, so that GPT-3 takes a moment. The formulas are products of sizes in
    the lecture's words (d_embed, n_vocab, d_query, n_heads, n_layers, n_neurons); each is equal to the count beside it.

    Another width keeps the ratio of the hidden neurons to it; the width of a head is d / heads, rounded down to an even
    number.

    Raises:
        UsageError: there is no such size, or nothing to count, or it cannot have other sizes.
    """
    what = model_or_size if size is None else size
    name, config = _named(what)
    changes = {key: n for key, n in (("n_embd", n_embd), ("n_layer", n_layer), ("n_head", n_head)) if n is not None}
    if changes:
        what = config = resized(config, changes)
        name += f" with {', '.join(f'{key}={n:,}' for key, n in changes.items())}"
    compressed = isinstance(what, nn.Module) and any(map(is_compressed, what.modules()))
    model = what if isinstance(what, nn.Module) and not compressed else model_on_meta(config)
    groups: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces(model):
        part = piece.name if piece.part == "other" else piece.part
        groups.setdefault((part, piece.stack), []).append(piece)
    if not groups:
        raise UsageError(f"this {type(model).__name__} has no parameters: it counts what it has seen")
    parts = [_count(part, stack, group, config) for (part, stack), group in groups.items()]
    parts.sort(key=lambda part: (not part.in_lecture, _place(part), part.stack == "decoder"))
    return ParametersView(
        name=name,
        total=sum(part.counted for part in parts),
        lecture_total=sum(part.parameters for part in parts if part.in_lecture),
        lecture_matrices=sum(part.matrices for part in parts if part.in_lecture),
        parts=parts,
        compressed=compressed,
        sizes=_sizes(config),
    )


def _sizes(config: Any) -> dict[str, int] | None:
    found = {name: getattr(config, name, None) for name in ("n_embd", "n_layer", "n_head")}
    return {name: int(n) for name, n in found.items() if n} if all(found.values()) else None


def resized(config: Any, changes: dict[str, int]) -> Any:
    """A configuration with another width, depth or number of heads.

    Raises:
        UsageError: it has more than one stack, or is not possible with these sizes.
    """
    if _sizes(config) is None or not hasattr(type(config), "make"):
        raise UsageError(f"a {type(config).__name__} has not one width and depth to change; count it as it is")
    fields = config.model_dump() | changes
    if "n_embd" in changes and fields.get("n_hidden"):
        fields["n_hidden"] = max(1, round(fields["n_hidden"] * changes["n_embd"] / config.n_embd))
    if changes.keys() & {"n_embd", "n_head"}:
        fields["head_width"] = max(2, fields["n_embd"] // fields["n_head"] // 2 * 2)
        grouped = config.n_kv_head != config.n_head and fields["n_head"] % config.n_kv_head == 0
        fields["n_kv_head"] = config.n_kv_head if grouped else fields["n_head"]
    return type(config).make(**fields)


def _named(what: Any) -> tuple[str, Any]:
    """(what to call it, its configuration)"""
    if isinstance(what, str):
        if what not in SIZES:
            raise UsageError(f"no size is called {what!r}; {did_you_mean(what, SIZES)}")
        return what, ModelConfig.make(**SIZES[what])
    config = getattr(what, "config", what)
    if not hasattr(type(config), "model_fields"):
        name = type(what).__name__
        raise UsageError(f"{name}: there are no parameters to count in it; give a model, its config or a size")
    family = getattr(getattr(config, "decoder", config), "family", "")
    return f"{family} {type(what if isinstance(what, nn.Module) else config).__name__}".strip(), config


def _place(part: PartCount) -> int:
    order = LECTURE if part.in_lecture else PARTS
    return order.index(part.part) if part.part in order else len(order)


def _count(part: str, stack: str, group: list[Piece], config: Any) -> PartCount:
    whole = getattr(config, stack) if stack else config
    sizes = letters(whole() if callable(whole) else whole)
    in_lecture = part in LECTURE
    words = {**WORDS, "D": "d_value"} if part in ("value", "output", "cross value", "cross output") else WORDS
    factors = [_factors(piece, many, sizes) for piece, many in _alike(group)]
    shared = {piece.is_same_as for piece in group if piece.is_same_as}
    return PartCount(
        part=part,
        stack=stack,
        formula=" + ".join(" * ".join(_in_words(f, words) for f in term) for term in factors),
        numbers=" + ".join(" * ".join(f"{_number_for(f, sizes):,}" for f in term) for term in factors),
        matrices=sum(_matrices(piece, sizes) for piece in group),
        parameters=sum(piece.size for piece in group),
        counted=sum(piece.size for piece in group if not piece.is_same_as),
        shared_with=next(iter(shared)) if shared else None,
        in_lecture=in_lecture,
    )


def _alike(group: list[Piece]) -> list[tuple[Piece, int]]:
    """Each shape that there is, and how often; those of the blocks apart from the others."""
    many = Counter((piece.axes, piece.layer is None) for piece in group)
    first = {(piece.axes, piece.layer is None): piece for piece in reversed(group)}
    return [(first[key], n) for key, n in many.items()]


def _factors(piece: Piece, many: int, sizes: dict[str, int]) -> list[str]:
    """What a term is the product of, in letters and numbers, in the lecture's order: the number of heads and layers
    comes last, and a table is so many numbers for each of its entries."""
    axes = list(piece.axes)
    if piece.part in ("embedding", "n-grams", "segments", "positions"):
        axes.reverse()
    split = [[axis] if "+" in axis else axis.split() for axis in axes]
    flat = [factor for axis in split for factor in axis if factor != "1"]
    heads = [factor for factor in flat if factor in "HK"] if "D" in flat else []
    flat = [factor for factor in flat if factor not in heads] + heads
    before, after = [], []
    if piece.layer is not None and many % sizes["L"] == 0:
        many, after = many // sizes["L"], ["L"]
        if ".experts." in piece.name and many % sizes["E"] == 0:
            many, after = many // sizes["E"], ["E", "L"]
    if many > 1:
        before = [str(many)]
    return [*before, *flat, *after]


def _in_words(factor: str, words: dict[str, str]) -> str:
    if "+" in factor:
        return "(" + " + ".join(words.get(term, term) for term in factor.split(" + ")) + ")"
    return words.get(factor, f"{int(factor):,}" if factor.isdigit() else factor)


def _number_for(factor: str, sizes: dict[str, int]) -> int:
    return sum(sizes[term] if term in sizes else int(term) for term in factor.split(" + "))


def _matrices(piece: Piece, sizes: dict[str, int]) -> int:
    """How many matrices the lecture counts in it: one a head of query, key and value."""
    if piece.part.removeprefix("cross ") not in ("query", "key", "value"):
        return 1
    return math.prod(sizes[letter] for letter in piece.axes[0].split() if letter in "HK")
