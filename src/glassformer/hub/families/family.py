"""What a family of models elsewhere must tell: which configurations it can hold, its fields, its tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.weight_table import Row, Stack, Tensors, read, write
from glassformer.models import EncoderConfig

# Sizes that every family has a word for, and the preset, which is none of a model's facts.
SIZES = ("family", "vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_hidden")
# Their other names for some of `glassformer.layers.ACTIVATIONS`.
OTHER_ACTIVATIONS = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "gelu_python": "gelu"}
KNOWN_ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu")


class Family:
    """One `model_type` of `transformers`, and how its folders become our models and back.

    model_type: the word in config.json. configuration: the class of our configurations that it may hold; None: any.
    fixed_words: those of config.json that change what is computed, and the one value of each that ours know.
    unpacks: formats of packed weights (`quant_method`) that it reads.
    base_prefix: what the table has in front of all names but the head's, and files of the base class lack.
    """

    model_type: ClassVar[str]
    configuration: ClassVar[Any]
    base_prefix: ClassVar[str] = "model."
    fixed_words: ClassVar[dict[str, Any]] = {}
    unpacks: ClassVar[tuple[str, ...]] = ()

    def can_represent(self, c: Any) -> bool:
        """Whether a model of this configuration, of the class `configuration`, computes the same there."""
        raise NotImplementedError

    def write_config(self, c: Any) -> dict[str, Any]:
        """The configuration in their words, for config.json."""
        raise NotImplementedError

    def read_config(self, given: dict[str, Any]) -> Any:
        """Our configuration from a config.json.

        Raises:
            ModelFolderError: it asks for what our models cannot do.
            KeyError: a field is missing, by its name.
        """
        raise NotImplementedError

    def table(self, c: Any) -> Sequence[Row | Stack]:
        """All tensors of a model of this configuration."""
        raise NotImplementedError

    def names(self, c: Any) -> set[str]:
        """The names of all tensors in the table."""
        return {name for row in self.table(c) for name in row.theirs if name is not None}

    def normalize_keys(self, theirs: Tensors, c: Any) -> Tensors:
        """Their tensors under the names of the table, without those that say nothing new."""
        return theirs

    def write_tensors(self, ours: Tensors, c: Any) -> Tensors:
        """Our tensors as theirs; what is tied stands in `ours` once, under its first name."""
        return write(self.table(c), ours)

    def read_tensors(self, theirs: Tensors, c: Any) -> Tensors:
        """Their tensors as ours. Raises as `tables.read`."""
        return read(self.table(c), self.normalize_keys(theirs, c))


def agrees(c: Any, *, free: Collection[str], **fixed: Any) -> bool:
    """Whether the fields of a configuration, but for the `free` ones and `SIZES`, have the `fixed` values, or their
    defaults where none is given. A field that nobody thought of must therefore be at its default. Fields that nothing
    looks at may be as they like.
    """
    if not is_known_activation(c.activation):
        return False
    meaningless = fields_without_meaning(c)
    for name, field in type(c).model_fields.items():
        if name in SIZES or name in free or name in meaningless:
            continue
        if getattr(c, name) != fixed.get(name, field.default):
            return False
    return True


def fields_without_meaning(c: Any) -> set[str]:
    """Fields of a `ModelConfig` or `EncoderConfig` that nothing looks at, because of what other fields say."""
    dead: set[str] = set()
    if c.positions != "rotary":
        dead |= {"rotary_base", "rotary_fraction", "rotary_scaling"}
    if c.positions != "rotary" or not any(pattern.is_local for pattern in c.layer_patterns()):
        dead |= {"rotary_base_local"}
    if c.positions != "relative":
        dead |= {"relative_buckets", "relative_max_distance"}
    if c.positions != "sinusoidal":
        dead |= {"sinusoid_layout"}
    if all(c.positioned_layers or ()) or c.positions not in ("rotary", "alibi", "relative"):
        dead |= {"positioned_layers"}
    if c.feedforward != "clamped":
        dead |= {"feedforward_limit"}
    if not c.qk_norm:
        dead |= {"qk_norm_over"}
    if not c.n_expert:
        dead |= {"n_expert_active", "balance_weight", "expert_shares", "router_bias"}
    if c.n_gram == 1:
        dead |= {"n_gram_rows"}
    if isinstance(c, EncoderConfig):
        dead |= _of_other_stems(c)
        if c.token_head != "vocabulary":  # there is no such head
            dead |= {"tied_head", "head_bias", "logit_scale", "logit_softcap"}
    return dead


def _of_other_stems(c: EncoderConfig) -> set[str]:
    of = {
        "text": {"vocab_size", "n_gram", "n_gram_rows", "n_segments", "embedding_scale", "embedding_norm"},
        "patches": {"image_size", "patch_size", "n_channels"},
        "frames": {"n_mels"},
    }
    return set().union(*(fields for stem, fields in of.items() if stem != c.stem))


def heads_fill_the_width(c: Any) -> bool:
    """As many key-value heads as heads, and together as wide as the vectors: all that most families know."""
    return bool(c.n_kv_head == c.n_head and c.head_width * c.n_head == c.n_embd)


def is_known_activation(ours: str) -> bool:
    """Whether transformers has an activation of this name that computes the same."""
    return ours in KNOWN_ACTIVATIONS


def activation(given: str) -> str:
    """Our name for an activation; what is unknown is refused by `ModelConfig`."""
    return OTHER_ACTIVATIONS.get(given, given)


def classes_of(given: dict[str, Any]) -> int:
    """How many classes a classifier's config.json names; transformers takes 2 where it says nothing.

    Raises:
        ModelFolderError: its logits are no choice of one class: numbers to be predicted, or classes each by itself.
    """
    n = len(given["id2label"]) if given.get("id2label") else given.get("num_labels", 2)
    problem = given.get("problem_type") or ("regression" if n == 1 else "single_label_classification")
    if problem != "single_label_classification":
        raise ModelFolderError(
            f"config.json has problem_type={problem} (with {n} labels), and our classifiers choose one of several "
            "classes; take a model that does"
        )
    return int(n)


def special_tokens(given: dict[str, Any]) -> dict[str, Any]:
    """The special tokens of an encoder-decoder; without a start token it starts with padding, as T5 does."""
    pad, end = given.get("pad_token_id"), given["eos_token_id"]
    start = given.get("decoder_start_token_id")
    return {
        "start_token": start if start is not None else pad or 0,
        "end_token": end[0] if isinstance(end, list) else end,
        "pad_token": pad or 0,
    }


def refuse(given: dict[str, Any], *fields: str) -> None:
    """Raise for the first of these fields that is set: our models have nothing of the kind."""
    for field in fields:
        if given.get(field):
            raise ModelFolderError(f"config.json sets {field}, which our models cannot express")
