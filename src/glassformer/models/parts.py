"""What each parameter of a model is: which part it belongs to, and what its axes are, in letters.

    blocks.3.attention.qkv.weight     (3 H D, C)     query (H D, C), key (H D, C), value (H D, C)
    blocks.3.feedforward.down.weight  (C, F)         down

Read off the modules that own the parameters, so that whatever is built of our layers is known: decoders, encoders of
text, images and sound, encoder-decoders, mixtures of experts.

Letters: C channels (n_embd), V vocabulary, T positions (block_size), H heads, K key-value heads, D width of a head,
F hidden neurons, E experts, G segments, N classes, R buckets of distances, P width of a patch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from glassformer.layers import (
    Attention,
    CrossAttention,
    Experts,
    FeedForward,
    GatedFeedForward,
    LayerNorm,
    LearnedPositions,
    RelativePositions,
    RMSNorm,
)
from glassformer.models.decoder import Decoder
from glassformer.models.decoder_classifier import DecoderClassifier
from glassformer.models.encoder import Encoder
from glassformer.models.speech_decoder import SpeechDecoder
from glassformer.models.stems import (
    FrameLevelStem,
    FrameStem,
    NGrams,
    PatchConvolutions,
    PatchStem,
    SetStem,
    TextStem,
    TripleStem,
    VectorStem,
)
from glassformer.models.trajectory_decoder import TrajectoryDecoder
from glassformer.models.vector_decoder import VectorDecoder

Axes = tuple[str, ...]

PARTS = (
    "embedding",
    "n-grams",
    "patches",
    "frames",
    "read-in",
    "class token",
    "segments",
    "positions",
    "query",
    "key",
    "value",
    "output",
    "sinks",
    "cross query",
    "cross key",
    "cross value",
    "cross output",
    "router",
    "up",
    "gate",
    "down",
    "pooler",
    "classifier",
    "transform",
    "unembedding",
    "read-out",
    "norms",
    "biases",
    "other",
)
"""All parts there are, in the order of the computation. `other`: what none of our layers owns."""


class Piece(NamedTuple):
    """A parameter, or that part of its rows which is a matrix of its own.

    part: one of `PARTS`. belongs_to: the same, but of a bias the part whose bias it is. axes: a product of letters (or
    a number) for each axis of the piece: ("H D", "C"). rows: where it begins and ends in a fused matrix; None: it is
    the whole. stack: "encoder" or "decoder", "image" or "text", where a model has both. layer: which block it stands
    in; None: in none.
    is_same_as: the name under which the same tensor was met before.
    """

    name: str
    part: str
    belongs_to: str
    axes: Axes
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    stack: str = ""
    layer: int | None = None
    is_same_as: str | None = None

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


LAYERS: dict[tuple[type[nn.Module], str], list[tuple[str, Axes]]] = {
    (TextStem, "token"): [("embedding", ("V", "C"))],
    (TextStem, "segment"): [("segments", ("G", "C"))],
    (NGrams, "back"): [("n-grams", ("V + 1", "C"))],
    (NGrams, "joint"): [("n-grams", ("rows", "C"))],
    (PatchStem, "patch"): [("patches", ("C", "channels", "P", "P"))],
    (PatchConvolutions, "halves"): [("patches", ("rows", "columns", "3", "3"))],
    (PatchConvolutions, "norms"): [("norms", ("rows",))],
    (PatchConvolutions, "out"): [("patches", ("C", "C", "1", "1"))],
    (FrameStem, "first"): [("frames", ("C", "mels", "3"))],
    (FrameStem, "second"): [("frames", ("C", "C", "3"))],
    (FrameLevelStem, "token"): [("embedding", ("rows", "C"))],
    (VectorStem, "read_in"): [("read-in", ("C", "inputs"))],
    (TripleStem, "timestep"): [("positions", ("timesteps", "C"))],
    (TripleStem, "read_return"): [("read-in", ("C", "1"))],
    (TripleStem, "read_state"): [("read-in", ("C", "state"))],
    (TripleStem, "read_action"): [("read-in", ("C", "action"))],
    (SetStem, "token"): [("embedding", ("V", "C"))],
    (SetStem, "read_in"): [("read-in", ("C", "inputs"))],
    (Attention, "qkv"): [("query", ("H D", "C")), ("key", ("K D", "C")), ("value", ("K D", "C"))],
    (Attention, "out"): [("output", ("C", "H D"))],
    (CrossAttention, "query"): [("cross query", ("H D", "C"))],
    (CrossAttention, "key_value"): [("cross key", ("K D", "C")), ("cross value", ("K D", "C"))],
    (CrossAttention, "out"): [("cross output", ("C", "H D"))],
    (FeedForward, "up"): [("up", ("F", "C"))],
    (FeedForward, "down"): [("down", ("C", "F"))],
    (GatedFeedForward, "gate_up"): [("gate", ("F", "C")), ("up", ("F", "C"))],
    (GatedFeedForward, "down"): [("down", ("C", "F"))],
    (Experts, "router"): [("router", ("E", "C"))],
    (Encoder, "pooler"): [("pooler", ("C", "C"))],
    (Encoder, "transform"): [("transform", ("C", "C"))],
    (Encoder, "classifier"): [("classifier", ("N", "C"))],
    (Encoder, "distillation_classifier"): [("classifier", ("N", "C"))],
    (Encoder, "head"): [("unembedding", ("V", "C"))],
    (DecoderClassifier, "classifier"): [("classifier", ("N", "C"))],
    (Decoder, "head"): [("unembedding", ("V", "C"))],
    (VectorDecoder, "head"): [("read-out", ("outputs", "C"))],
    (SpeechDecoder, "head"): [("read-out", ("rows", "C"))],
    (SpeechDecoder, "end_head"): [("read-out", ("1", "C"))],
    (TrajectoryDecoder, "head"): [("read-out", ("action", "C"))],
}
"""The matrices of each layer, by the module that owns it and its name there; several where they are fused, in order."""


def letters(config: Any) -> dict[str, int]:
    """What the letters stand for in a stack of blocks; without those that it has no use for."""
    fields = {
        "C": "n_embd", "V": "vocab_size", "T": "block_size", "L": "n_layer", "H": "n_head", "K": "n_kv_head",
        "D": "head_width", "F": "n_hidden", "E": "n_expert", "G": "n_segments", "N": "n_classes",
        "R": "relative_buckets", "P": "patch_size", "channels": "n_channels", "mels": "n_mels", "inputs": "n_inputs",
        "outputs": "n_outputs", "state": "state_size", "action": "action_size", "timesteps": "max_timestep",
    }  # fmt: skip
    found = {letter: getattr(config, field, 0) for letter, field in fields.items()}
    return {letter: n for letter, n in found.items() if n}


def pieces(model: nn.Module) -> list[Piece]:
    """Every parameter in the order of the modules, those of several matrices piece by piece. One that is there under
    two names (a tied head) is listed twice, the second time with `is_same_as`."""
    known: dict[int, str] = {}
    found = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = known.setdefault(id(parameter), name)
        same = None if first == name else first
        found += [piece._replace(is_same_as=same) for piece in pieces_of(model, name, parameter)]
    return found


def pieces_of(model: nn.Module, name: str, parameter: Tensor) -> list[Piece]:
    """What one parameter of a model is; `parameter` may also be the matrix that a compressed layer stands for."""
    path, _, field = name.rpartition(".")
    holder = model.get_submodule(path)
    above, _, layer = path.rpartition(".")
    if isinstance(owner := model.get_submodule(above), nn.ModuleList):  # one of several of a kind
        above, _, layer = above.rpartition(".")
        owner = model.get_submodule(above)
    found_pieces = _known_pieces(owner, layer, holder, field) or [("other", tuple(map(str, parameter.shape)))]
    if isinstance(owner, (Attention, CrossAttention)) and owner.n_head == owner.n_kv_head:
        found_pieces = [(part, tuple(axis.replace("K", "H") for axis in axes)) for part, axes in found_pieces]
    lengths = [len(parameter)] if len(found_pieces) == 1 else _lengths(owner, len(found_pieces), len(parameter))
    is_bias = field == "bias" and found_pieces[0][0] != "other"
    stack, numbered = "", name.split(".")
    if numbered[0] in ("encoder", "decoder", "image", "text"):
        stack, *numbered = numbered
    block = int(numbered[1]) if numbered[0] == "blocks" else None
    made, start = [], 0
    for (part, axes), length in zip(found_pieces, lengths, strict=True):
        own = {"rows": str(length), "columns": str(parameter.shape[min(1, parameter.dim() - 1)])}
        known = tuple(own.get(axis, axis) for axis in (axes[:1] if is_bias else axes))
        rows = None if len(found_pieces) == 1 else (start, start + length)
        shape = length, *parameter.shape[1:]
        made.append(Piece(name, "biases" if is_bias else part, part, known, shape, rows, stack, block))
        start += length
    return made


def whole_axes(pieces: Sequence[Piece]) -> Axes:
    """The axes of a parameter from those of its pieces.

    >>> whole_axes([Piece("", "gate", "gate", ("F", "C"), (7, 3)), Piece("", "up", "up", ("F", "C"), (7, 3))])
    ('2 F', 'C')
    """
    first = Counter(piece.axes[0] for piece in pieces)
    times = [axis if n == 1 else f"{n} {axis}" for axis, n in first.items()]
    if len(times) > 1 and all(axis.endswith(" D") for axis in first):  # (H + 2 K) D
        return f"({' + '.join(axis.removesuffix(' D') for axis in times)}) D", *pieces[0].axes[1:]
    return " + ".join(times), *pieces[0].axes[1:]


def _known_pieces(owner: nn.Module, layer: str, holder: nn.Module, field: str) -> list[tuple[str, Axes]] | None:
    if isinstance(holder, LearnedPositions):
        return [("positions", ("T", "C"))]
    if isinstance(holder, RelativePositions):
        return [("positions", ("R", "H"))]
    if isinstance(holder, PatchStem) and field in ("class_token", "distillation_token"):
        return [("class token", ("1", "1", "C"))]
    if isinstance(holder, (Attention, CrossAttention)) and field == "sinks":
        return [("sinks", ("H",))]
    if isinstance(holder, (LayerNorm, RMSNorm)) and not isinstance(owner, PatchConvolutions):
        return [("norms", (_normed(owner, layer),))]
    if isinstance(owner, Encoder) and layer == "head" and owner.config.token_head == "classes":
        return [("classifier", ("N", "C"))]
    return next(
        (found_pieces for (kind, name), found_pieces in LAYERS.items() if isinstance(owner, kind) and layer == name),
        None,
    )


def _normed(owner: nn.Module, layer: str) -> str:
    """What a norm goes over."""
    if not isinstance(owner, (Attention, CrossAttention)):
        return "C"
    if owner.norms_each_head:
        return "D"
    return "H D" if layer == "query_norm" else "K D"


def _lengths(owner: nn.Module, n: int, rows: int) -> list[int]:
    """The rows of each matrix of a fused one."""
    return list(owner.qkv_rows) if isinstance(owner, Attention) else [rows // n] * n
