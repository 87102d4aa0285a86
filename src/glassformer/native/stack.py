"""A decoder whose blocks run in one compiled call, with matrices of 8 or 4 bits; where the embedding and the head are
plain ones, they are part of it."""

from __future__ import annotations

import copy
import ctypes
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import (
    ACTIVATIONS,
    Attention,
    Block,
    Causal,
    ClampedFeedForward,
    FeedForward,
    GatedFeedForward,
    LayerNorm,
    LearnedPositions,
    Mask,
    NoPositions,
    RotaryPositions,
    Rows,
    SandwichBlock,
    SinusoidalPositions,
    Window,
    ZeroCenteredRMSNorm,
)
from glassformer.layers.masks import And
from glassformer.native.building import library
from glassformer.native.quantized import GROUP, KINDS, MatrixStruct, QuantizedLinear, fields
from glassformer.taps import named_taps
from glassformer.threads import kernel_threads

M = TypeVar("M", bound=nn.Module)

POSITIONS = (LearnedPositions, NoPositions, SinusoidalPositions, RotaryPositions)  # not a bias on scores


class NormStruct(ctypes.Structure):
    _fields_ = (
        *fields(ctypes.c_void_p, "weight bias"),
        ("eps", ctypes.c_float),
        ("centred", ctypes.c_int32),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        *fields(NormStruct, "attention_norm attention_norm_after feedforward_norm feedforward_norm_after"),
        *fields(MatrixStruct, "qkv out up down"),
        *fields(ctypes.c_void_p, "query_norm key_norm"),
        ("head_eps", ctypes.c_float),
        *fields(ctypes.c_int32, "window local"),
    )


class StackStruct(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(LayerStruct)),
        ("final_norm", NormStruct),
        ("head", MatrixStruct),
        *fields(ctypes.c_void_p, "table places"),
        ("table_scale", ctypes.c_float),
        *fields(ctypes.c_int32, "n_layer width n_head n_kv_head head_width n_hidden activation gated pairs"),
        ("scale", ctypes.c_float),
        ("exact", ctypes.c_int32),
    )


class CacheStruct(ctypes.Structure):
    _fields_ = (
        *fields(ctypes.c_void_p, "keys values tokens"),
        *fields(ctypes.c_int64, "layer_stride row_stride head_stride token_stride"),
    )


class TokensStruct(ctypes.Structure):
    _fields_ = (
        ("ids", ctypes.POINTER(ctypes.c_int64)),
        *fields(ctypes.c_void_p, "x logits"),
        *fields(ctypes.POINTER(ctypes.c_int32), "rows positions"),
        *fields(ctypes.c_void_p * 2, "cos sin"),
        ("turns", ctypes.POINTER(ctypes.c_int32)),
        ("n", ctypes.c_int32),
    )


def quantized_copy(model: M, bits: int) -> M:
    """A copy of a model with its matrices in `bits` bits, for generation on a CPU. Embeddings, norms and matrices whose
    width is no multiple of 32 stay as they are; the head has 8 bits, where rounding matters most. The blocks of a
    decoder run in one compiled call where `NativeStack` knows all of their parts.

    Raises:
        UsageError: `bits` is neither 8 nor 4.
        DeviceError: there is no compiler that works.
    """
    if bits not in (8, 4):
        raise UsageError(f"bits={bits} is unknown; use 8 or 4")
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    tables = {id(p) for module in model.modules() if module not in linear for p in module.parameters(recurse=False)}
    # weights that are replaced are not copied: a model is hundreds of megabytes
    memo = {id(module.weight): module.weight for module in linear if id(module.weight) not in tables}
    model = copy.deepcopy(model, memo)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and child.in_features % GROUP == 0:
                setattr(module, name, QuantizedLinear(child.weight, child.bias, 8 if name == "head" else bits))
    model.native = NativeStack.of(model)  # type: ignore[assignment]
    if model.native is None:
        for module in model.modules():
            if isinstance(module, FeedForward):
                _take_activation(module)
    return model


def compile_exactly(model: Any) -> bool:
    """Let cached calls of a decoder in fp32 run as one compiled call, if `NativeStack` knows all of its parts.

    Numbers stay what they are: each matrix is packed in the fewest bits that hold it exactly (`QuantizedLinear.of`);
    products and sums are fp32, added up in another order. The model keeps its weights, and PyTorch computes every other
    call: with gradients, without a cache, or with a listener on a tap; and all of them after a weight has changed.
    """
    stack = NativeStack.of(model)
    if stack is not None:
        model.native = stack
    return stack is not None


def _take_activation(feedforward: FeedForward) -> None:
    """Let the compiled product do the activation too, where it knows it."""
    kind = next((i for i, name in enumerate(KINDS) if ACTIVATIONS[name] is feedforward.activation), None)
    if kind is not None and isinstance(feedforward.up, QuantizedLinear) and feedforward.up.rows % GROUP == 0:
        feedforward.up.activation, feedforward.activation = kind, nn.Identity()


class NativeStack:
    """A `Decoder` as `decode.cpp` sees it. `NativeStack.of` makes one, or None.

    `run` is the blocks and the final norm; `logits` is everything, where embedding, positions and head are plain.
    `bits`: of the matrices, by their width. `exact`: vectors are not rounded.
    """

    def __init__(self, model: Any):
        config, blocks = model.config, model.blocks
        self._kept: list[Tensor] = []  # what the pointers point to
        self.bits: Counter[int] = Counter()
        self.exact = isinstance(blocks[0].attention.out, nn.Linear)
        self._weights = [
            (module._parameters, name, weight.data_ptr(), weight._version)  # where it is held, and what it was
            for module in (model.modules() if self.exact else ())
            for name, weight in module.named_parameters(recurse=False)
        ]
        layers = (LayerStruct * len(blocks))()
        for layer, block, pattern in zip(layers, blocks, model.masks, strict=True):
            attention, feedforward = block.attention, block.feedforward
            gated = isinstance(feedforward, GatedFeedForward)
            layer.attention_norm = self._norm(block.attention_norm)
            layer.feedforward_norm = self._norm(block.feedforward_norm)
            layer.attention_norm_after = self._norm(getattr(block, "attention_norm_after", None))
            layer.feedforward_norm_after = self._norm(getattr(block, "feedforward_norm_after", None))
            layer.qkv, layer.out = self._matrix(attention.qkv), self._matrix(attention.out)
            layer.up = self._matrix(feedforward.gate_up if gated else feedforward.up)
            layer.down = self._matrix(feedforward.down)
            layer.query_norm = self._norm(attention.query_norm).weight
            layer.key_norm = self._norm(attention.key_norm).weight
            layer.head_eps = config.norm_eps
            layer.window = _window(pattern)
            layer.local = int(model.local_positions is not None and pattern.is_local)
        attention, feedforward = blocks[0].attention, blocks[0].feedforward
        self.tables = [p for p in (model.positions, model.local_positions) if isinstance(p, RotaryPositions)]
        self.stack = StackStruct(
            layers,
            self._norm(model.final_norm),
            MatrixStruct(),
            None,
            None,
            model.embedding.scale,
            len(blocks),
            config.n_embd,
            config.n_head,
            config.n_kv_head,
            config.head_width,
            config.n_hidden,
            KINDS.index(config.activation),
            int(isinstance(feedforward, GatedFeedForward)),
            self.tables[0].width // 2 if self.tables else 0,
            attention.scale,
            int(self.exact),
        )
        self.whole = _whole(model, self.tables)
        if self.whole:
            self.stack.head = self._matrix(model.head)
            self.stack.table = self._pointer(model.embedding.token.weight)
            self.stack.places = self._pointer(getattr(model.positions, "weight", None))
        self.vocab_size = config.vocab_size
        self._taps, self._all_taps = [list(named_taps(part).values()) for part in (model.blocks, model)]
        self._call = library().glassformer_run  # type: ignore[union-attr]

    @classmethod
    def of(cls, model: Any) -> NativeStack | None:
        """For a decoder all of whose parts are known here and whose matrices are all quantized or all plain; else
        None."""
        if library() is None or not getattr(model, "has_native_form", False):
            return None
        if not all(map(_known, model.blocks, model.masks)):
            return None
        config = model.config
        if config.head_width % GROUP or model.no_positions is not None or not isinstance(model.positions, POSITIONS):
            return None
        return cls(model)

    def serves(self, cache: Any, *, whole: bool = False) -> bool:
        """Whether a call with this cache can be taken: rows of fp32 on the CPU, and no tap has a listener.

        whole: by `logits`, else by `run`.
        """
        if not isinstance(cache, Rows) or (whole and not self.whole):
            return False
        keys = cache.cache.keys
        if keys.device.type != "cpu" or keys.dtype != torch.float32:
            return False
        for held, name, address, version in self._weights:
            weight = held[name]
            if weight is None or weight.data_ptr() != address or weight._version != version:
                return False  # trained, edited or replaced since
        return not any(map(attrgetter("listener"), self._all_taps if whole else self._taps))

    def run(self, x_BTC: Tensor, rows: Rows) -> Tensor:
        """Vectors of the next tokens of these rows through all blocks and the final norm; fills the cache, which must
        be large enough."""
        x_NC = x_BTC.float().reshape(-1, x_BTC.shape[-1]).clone(memory_format=torch.contiguous_format)
        self._run(rows, TokensStruct(x=x_NC.data_ptr(), n=len(x_NC)))
        return x_NC.view(x_BTC.shape)

    def logits(self, ids_BT: Tensor, rows: Rows) -> Tensor:
        """The next tokens (B, T) of these rows, which are extended -> logits (B, T, V).

        Raises:
            UsageError: the cache is too small for them, or a token is not in the vocabulary.
        """
        B, T = ids_BT.shape
        ids = ids_BT.flatten().tolist()
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(f"token {token} is not in the vocabulary (0 to {self.vocab_size - 1})")
        logits_BTV = torch.empty(B, T, self.vocab_size)
        self._run(rows, TokensStruct(ids=(ctypes.c_int64 * (B * T))(*ids), logits=logits_BTV.data_ptr(), n=B * T))
        rows.advance(T)
        return logits_BTV

    def _run(self, rows: Rows, tokens: TokensStruct) -> None:
        held, n, one = rows.cache, tokens.n, rows.stop - rows.start == 1
        positions = range(rows.length, rows.length + n) if one else rows.lengths
        if max(positions) >= held.capacity:  # what is compiled would write beyond it
            raise UsageError(f"position {max(positions)} is beyond the {held.capacity} that the cache can hold")
        tokens.rows = _numbers([rows.start] * n if one else range(rows.start, rows.stop))
        tokens.positions = tokens.turns = _numbers(positions)
        waves = [(table.cos, table.sin) for table in self.tables]
        if not all(len(cos) for cos, _ in waves):
            waves, tokens.turns = [table.waves(torch.tensor(positions)) for table in self.tables], _numbers(range(n))
        for i, (cos, sin) in enumerate(waves):
            tokens.cos[i], tokens.sin[i] = cos.data_ptr(), sin.data_ptr()
        pointers = (held.keys.data_ptr(), held.values.data_ptr(), held.tokens.data_ptr())
        cache = CacheStruct(*pointers, *held.keys.stride()[:3], held.tokens.stride(0))
        self._call(*map(ctypes.byref, (self.stack, cache, tokens)), kernel_threads())

    def __deepcopy__(self, memo: Any) -> NativeStack | None:
        """Of a copied model: the same numbers, which never change, and the taps of the copy. None of an exact one:
        weights of the copy may change by themselves."""
        if self.exact:
            return None
        twin = copy.copy(self)
        twin._taps, twin._all_taps = copy.deepcopy((self._taps, self._all_taps), memo)
        return twin

    def _pointer(self, weight: Tensor | None) -> int | None:
        """The address of a tensor as floats, which is kept."""
        if weight is None:
            return None
        self._kept.append(weight.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    def _matrix(self, linear: nn.Linear | QuantizedLinear) -> MatrixStruct:
        linear = QuantizedLinear.of(linear) if isinstance(linear, nn.Linear) else linear
        self.bits[linear.bits] += 1
        self._kept += [tensor for tensor in (linear.blocks, linear.bias) if tensor is not None]
        return linear.struct()

    def _norm(self, norm: Any) -> NormStruct:
        if norm is None:
            return NormStruct()
        weight = 1 + norm.weight.float() if isinstance(norm, ZeroCenteredRMSNorm) else norm.weight
        pointers = self._pointer(weight), self._pointer(getattr(norm, "bias", None))
        return NormStruct(*pointers, norm.eps, int(isinstance(norm, LayerNorm)))


def _numbers(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_int32]:
    numbers = list(numbers)
    return (ctypes.c_int32 * len(numbers))(*numbers)


def _whole(model: Any, tables: list[RotaryPositions]) -> bool:
    """Whether decode.cpp has all of a model: rows of a table that are scaled, at most with one of another table added,
    before the blocks, and nothing but a matrix after them."""
    stem, config = model.embedding, model.config
    if (
        not _is_matrix(model.head, model.blocks[0].attention.out)
        or config.logit_scale != 1
        or config.logit_softcap is not None
    ):
        return False
    if not (stem.n_grams is stem.segment is stem.norm is None) or stem.token.weight.dtype != torch.float32:
        return False
    return not isinstance(model.positions, SinusoidalPositions) and all(len(table.cos) for table in tables)


def _known(block: Any, pattern: Mask) -> bool:
    """Whether decode.cpp has all parts of a block."""
    attention, feedforward = getattr(block, "attention", None), getattr(block, "feedforward", None)
    if type(block) not in (Block, SandwichBlock) or block.crosses or not isinstance(attention, Attention):
        return False
    if not isinstance(feedforward, (FeedForward, GatedFeedForward)) or isinstance(feedforward, ClampedFeedForward):
        return False
    if not attention.norms_each_head or attention.sinks is not None or attention.softcap is not None:
        return False
    first: Any = feedforward.gate_up if isinstance(feedforward, GatedFeedForward) else feedforward.up
    matrices: tuple[Any, ...] = attention.qkv, attention.out, first, feedforward.down
    if not all(_is_matrix(matrix, attention.out) for matrix in matrices):
        return False
    return any(ACTIVATIONS[name] is feedforward.activation for name in KINDS) and _window(pattern) is not None


def _is_matrix(layer: Any, like: Any) -> bool:
    """Whether decode.cpp can take a layer, and it is of the kind of another one."""
    if type(layer) is nn.Linear:  # not a kind of it, which may compute something else
        weight = layer.weight
        plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_inference()
        return type(like) is nn.Linear and plain and layer.in_features % GROUP == 0
    return isinstance(layer, QuantizedLinear) and isinstance(like, QuantizedLinear)


def _window(pattern: Mask) -> int | None:
    """How many positions back a causal pattern looks, itself included; 0: all; None: it is not as simple as that."""
    if isinstance(pattern, Causal):
        return 0
    if isinstance(pattern, Window):
        return pattern.width
    if isinstance(pattern, And):
        a, b = _window(pattern.left), _window(pattern.right)
        return None if a is None or b is None else min(a, b) or max(a, b)
    return None
