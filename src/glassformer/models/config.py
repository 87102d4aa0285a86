"""ModelConfig: everything that decides the shape of a stack of blocks, checked once."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from glassformer import plugins
from glassformer.errors import UsageError
from glassformer.layers import ACTIVATIONS, NORMS, POSITIONS, Mask, Positions, parse_mask
from glassformer.models.mistakes import Checked
from glassformer.models.presets import FAMILIES
from glassformer.renamed import old_method


def _listed(given: Any) -> Any:
    """`model.patterns=window(64),causal` on the command line is a list too."""
    return tuple(text.strip() for text in given.split(",")) if isinstance(given, str) else given


Positive = Annotated[float, Field(gt=0)]


class RotaryScaling(Checked):
    """How rotary positions are stretched beyond the length that a model was trained on, in Hugging Face's words
    (`rope_scaling`); see `glassformer.layers.RotaryPositions`. What is None is left to the kind."""

    model_config = ConfigDict(allow_inf_nan=False)

    rope_type: str
    factor: float = Field(ge=1)
    original_max_position_embeddings: int | None = Field(default=None, ge=1)
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    mscale: Positive | None = None
    mscale_all_dim: Positive | None = None
    truncate: bool | None = None
    short_factor: tuple[Positive, ...] | None = Field(default=None, max_length=100_000)
    long_factor: tuple[Positive, ...] | None = Field(default=None, max_length=100_000)

    def words(self) -> dict[str, Any]:
        """What is set."""
        return self.model_dump(exclude_none=True)


class ModelConfig(Checked):
    """The shape of a decoder, or of the blocks of an encoder. Names are the lecture's; sizes are counts.

    `n_kv_head`, `head_width` and `n_hidden` follow from the others when left out: as many key-value heads as heads,
    n_embd / n_head, and 4 n_embd (plain) or 8/3 n_embd rounded up to a multiple of 32 (gated: three matrices instead
    of two, so the parameters are about the same). With `n_gram` above 1 the embedding also holds what the last n_gram
    tokens were: each by itself, and together in tables of up to `n_gram_rows` rows (`glassformer.models.stems.NGrams`).

    With sinusoidal positions `embedding_scale` is sqrt(n_embd) where it is left out (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, sect. 3.4), else 1.

    With `rotary_base_local`, layers whose pattern looks only so far turn by this base, unscaled: they need no angles
    for distances that they never see (Gemma 3, https://arxiv.org/abs/2503.19786, sect. 2). None: all turn alike.

    Raises:
        UsageError: from `ModelConfig.make` when a field is unknown or does not fit the others.
    """

    _causal: ClassVar[bool] = True  # whether a token sees the past alone

    family: Literal["classic", "modern", "original"] = "classic"
    vocab_size: int = Field(ge=1, le=10_000_000)
    block_size: int = Field(ge=1, le=10_000_000)
    n_layer: int = Field(ge=1, le=1000)
    n_head: int = Field(ge=1, le=1000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_kv_head: int = Field(ge=1)
    head_width: int = Field(ge=1, le=1_000_000)
    n_hidden: int = Field(ge=1, le=10_000_000)
    positions: str
    rotary_base: float = Field(default=10_000.0, gt=1)
    rotary_base_local: float | None = Field(default=None, gt=1)
    norm: str
    norm_eps: float = Field(gt=0)
    feedforward: Literal["plain", "gated", "clamped"]
    feedforward_limit: float = Field(default=7.0, gt=0)  # of "clamped": what gate and up are kept within (gpt-oss)
    activation: str
    bias: bool
    qkv_bias: bool | None = None  # on query, key and value; None: as `bias` (Qwen2 has these alone)
    out_bias: bool | None = None  # on the matrix behind the heads; None: as `bias`
    feedforward_bias: bool | None = None  # on the feed-forward's matrices; None: as `bias`
    qk_norm: bool
    qk_norm_over: Literal["head", "all"] = "head"  # what qk_norm divides by the length of (OLMo 2: all heads together)
    tied_head: bool
    n_gram: int = Field(default=1, ge=1, le=8)
    n_gram_rows: int = Field(default=0, ge=0, le=1_000_000_000)
    patterns: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = Field(
        default=None, min_length=1, max_length=1000
    )
    positioned_layers: Annotated[tuple[bool, ...] | None, BeforeValidator(_listed)] = Field(
        default=None, min_length=1, max_length=1000
    )  # which layers know positions, from the first again when they run out; None: all (SmolLM3: three of four)
    norm_place: Literal["pre", "post", "sandwich", "output"] = "pre"  # "output": on what a layer writes alone (OLMo 2)
    parallel: bool = False  # attention and feed-forward read the same stream (GPT-NeoX)
    final_norm: bool = True
    embedding_norm: bool = False
    embedding_scale: float = Field(default=1.0, gt=0)
    logit_scale: float = Field(default=1.0, gt=0)
    logit_softcap: float | None = Field(default=None, gt=0)
    head_bias: bool = False
    n_segments: int = Field(default=0, ge=0, le=1000)
    attention_scale: float | None = Field(default=None, gt=0)
    attention_softcap: float | None = Field(default=None, gt=0)
    attention_sinks: bool = False
    n_expert: int = Field(default=0, ge=0, le=10_000)
    n_expert_active: int = Field(default=2, ge=1)
    balance_weight: float = Field(default=0.01, ge=0)
    expert_shares: Literal["active", "all"] = "active"  # which experts share a softmax (Qwen3-MoE may: all)
    router_bias: bool = False  # on the scores of experts (gpt-oss)
    rotary_fraction: float = Field(default=1.0, gt=0, le=1)
    rotary_scaling: RotaryScaling | None = None
    relative_buckets: int = Field(default=32, ge=2, le=1_000_000)
    relative_max_distance: int = Field(default=128, ge=2, le=1_000_000)
    sinusoid_layout: str = "halves"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("family", "classic") not in FAMILIES:
            return given
        fields = {**FAMILIES[given.get("family", "classic")], **given}
        n_embd, n_head = fields.get("n_embd"), fields.get("n_head")
        if isinstance(n_embd, int) and isinstance(n_head, int) and n_head > 0:
            if "head_width" not in fields:
                if 0 < n_embd <= 1_000_000 and n_embd % n_head:
                    nearest = max(n_embd // n_head, 1) * n_head
                    raise UsageError(f"n_embd={n_embd} is not divisible by n_head={n_head}; try n_embd={nearest}")
                fields["head_width"] = n_embd // n_head
            fields.setdefault("n_kv_head", n_head)
            hidden = 4 * n_embd if fields["feedforward"] == "plain" else -(-8 * n_embd // (3 * 32)) * 32
            fields.setdefault("n_hidden", hidden)
            # without it tokens drown in the sines: those have length sqrt(C / 2), and fresh embeddings 0.02 sqrt(C)
            if fields.get("positions") == "sinusoidal" or fields.get("family") == "original":
                fields.setdefault("embedding_scale", math.sqrt(max(n_embd, 1)))
        fields.setdefault("final_norm", fields.get("norm_place", "pre") != "post")
        for part in ("qkv_bias", "out_bias", "feedforward_bias"):
            if fields.get(part) == fields["bias"]:
                fields[part] = None  # one way to write it
        return fields

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        for field, known in (("positions", POSITIONS), ("norm", NORMS), ("activation", ACTIVATIONS)):
            if (value := getattr(self, field)) not in known:
                raise UsageError(plugins.unknown(field, value, known))
        if self.n_head % self.n_kv_head:
            raise UsageError(
                f"n_head={self.n_head} is not divisible by n_kv_head={self.n_kv_head}; try n_kv_head={self.n_head}"
            )
        self.build_positions(causal=self._causal, block_size=1)
        scaling = self.rotary_scaling
        if scaling is not None and scaling.rope_type == "longrope" and self.positions == "rotary":
            # its angles for longer texts change as a text grows, which no table can hold
            original = scaling.original_max_position_embeddings or self.block_size
            if self.block_size > original:
                raise UsageError(
                    f"block_size={self.block_size} is too long for longrope; use block_size={original} or less"
                )
        if not all(self.positioned_layers or ()) and self.positions not in ("rotary", "alibi", "relative", "none"):
            raise UsageError(
                f"positioned_layers does not fit positions={self.positions}; use positions=rotary, alibi or relative"
            )
        if self.parallel and self.norm_place != "pre":
            raise UsageError(
                f"parallel=true does not fit norm_place={self.norm_place}; use norm_place=pre, or parallel=false"
            )
        if self.n_expert and self.n_expert_active > self.n_expert:
            raise UsageError(f"n_expert_active={self.n_expert_active} is too many; use {self.n_expert} or less")
        for text in self.patterns or ():
            if parse_mask(text).needs_graph and self.reads not in ("graph", "patches"):
                raise UsageError(
                    f"pattern {text!r} follows the edges of graphs or the grid of an image, and this model reads none; "
                    "leave it out"
                )
            if parse_mask(text).looks_ahead and self._causal:
                raise UsageError(f"pattern {text!r} sees the future, which a decoder must not; try '({text}) & causal'")
        return self

    @property
    def reads(self) -> str:
        """What comes in: "text", or another stem of an encoder."""
        return "text"

    parameter_count = old_method("models.parameter_count")
    layer_patterns = old_method("layer_masks")

    def layer_masks(self) -> list[Mask]:
        """Which query may attend to which key in each layer: `patterns`, from the first again when they run out."""
        cycle = [parse_mask(text) for text in self.patterns or ("causal" if self._causal else "full",)]
        return [cycle[layer % len(cycle)] for layer in range(self.n_layer)]

    def is_positioned(self, layer: int) -> bool:
        """Whether the queries and keys of a layer know positions."""
        return self.positioned_layers is None or self.positioned_layers[layer % len(self.positioned_layers)]

    def build_positions(
        self, *, causal: bool = True, block_size: int | None = None, base: float | None = None
    ) -> Positions:
        """The positions that the fields name, with their tables computed; with a `base`, rotary ones of this base,
        unscaled.

        Raises:
            UsageError: the fields do not fit together.
        """
        scaling = None if self.rotary_scaling is None or base else self.rotary_scaling.words()
        return POSITIONS[self.positions](
            n_embd=self.n_embd,
            n_head=self.n_head,
            head_width=self.head_width,
            block_size=block_size or self.block_size,
            causal=causal,
            rotary_base=base or self.rotary_base,
            rotary_fraction=self.rotary_fraction,
            rotary_scaling=scaling,
            relative_buckets=self.relative_buckets,
            relative_max_distance=self.relative_max_distance,
            sinusoid_layout=self.sinusoid_layout,
        )

    def biases(self) -> tuple[bool, bool, bool]:
        """Whether there are biases on query, key and value, behind the heads, and in the feed-forward."""
        parts = self.qkv_bias, self.out_bias, self.feedforward_bias
        qkv, out, feedforward = (self.bias if part is None else part for part in parts)
        return qkv, out, feedforward
