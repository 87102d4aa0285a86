"""What defines a Hugging Face family: the configurations that it can hold, its keys, its tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, TypeGuard

from glassformer.errors import ModelFolderError
from glassformer.hub.families.weight_table import Row, Stack, Tensors, read, with_head, write
from glassformer.models import DecoderClassifierConfig, EncoderConfig, ModelConfig, TrajectoryDecoderConfig

# Sizes that every family has a key for, and the preset, which has no effect on a model.
SIZES = ("family", "vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_hidden")
# Their other names for some of `glassformer.layers.ACTIVATIONS`.
OTHER_ACTIVATIONS = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "gelu_python": "gelu"}
KNOWN_ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu", "relu2", "quick_gelu")
# Keys that most families share.
STACK_KEYS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_hidden",
    "hidden_act": "activation",
}
DECODER_KEYS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    **STACK_KEYS,
    "tie_word_embeddings": "tied_head",
}


class Family:
    """One `model_type` of `transformers`, and how its folders become our models and back.

    A family states its data below and `table`; what data cannot express goes into `fits`, `extra_keys`, `extra_fields`
    and `normalize_keys`.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]  # the class in transformers
    configuration: ClassVar[Any] = ModelConfig  # the class of our configurations that it may hold; None: any
    classifier: ClassVar[str | None] = None  # the class with a head over classes (`DecoderClassifierConfig`), if any
    preset: ClassVar[str] = "classic"  # fills in the fields that config.json does not decide
    keys: ClassVar[dict[str, str]] = {}  # key of config.json: our field
    defaults: ClassVar[dict[str, Any]] = {}  # what transformers takes where config.json lacks a key
    constants: ClassVar[dict[str, Any]] = {}  # keys that are always written with one value
    fixed: ClassVar[dict[str, Any]] = {}  # fields that all models of the family have, where not our default
    free: ClassVar[frozenset[str]] = frozenset()  # further fields that may vary
    fixed_keys: ClassVar[dict[str, Any]] = {}  # keys that change what is computed: the one value that is known here
    base_prefix: ClassVar[str] = "model."  # in front of all names but the head's; files of the base class lack it
    embedding: ClassVar[str] = ""  # their names of the token embedding and of the head, which may be tied
    head: ClassVar[str] = "lm_head.weight"
    unused: ClassVar[tuple[str, ...]] = ()  # ends of the names of redundant tensors

    def is_asked(self, c: Any) -> bool:
        """Whether it may hold configurations of this class."""
        return self.configuration in (None, type(c)) or (self.classifier is not None and is_classifier(c))

    def can_represent(self, c: Any) -> bool:
        """Whether a model of this configuration, of the class `configuration`, computes the same there."""
        free = {*self.keys.values(), *self.free, "n_kv_head", "head_width"}
        return matches(c, free=free, **self.fixed) and self.fits(c)

    def fits(self, c: Any) -> bool:
        """Whether the fields that may vary have values that the family can state."""
        return heads_fill_the_width(c)

    def write_config(self, c: Any) -> dict[str, Any]:
        """The configuration as the keys of config.json."""
        keys = {key: getattr(c, field) for key, field in self.keys.items()}
        return {"architectures": [self.architecture], **keys, **self.constants, **self.extra_keys(c)}

    def extra_keys(self, c: Any) -> dict[str, Any]:
        """Keys beside `keys`, or other values for them."""
        return {}

    def read_config(self, given: dict[str, Any]) -> Any:
        """Our configuration from a config.json. Raises `ModelFolderError` if it asks for what our models cannot do.
        Raises `KeyError` if a key is missing, by its name."""
        given = self.with_defaults(given)
        fields = {**self.fixed, **{field: given[key] for key, field in self.keys.items()}}
        if "activation" in fields:
            fields["activation"] = activation(fields["activation"])
        return self.configuration.make(**{"family": self.preset, **fields, **self.extra_fields(given)})

    def with_defaults(self, given: dict[str, Any]) -> dict[str, Any]:
        """With what transformers takes for the keys that a config.json lacks."""
        return given | {key: value for key, value in self.defaults.items() if key not in given}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Our fields beside `keys`, or other values for them. Raises `ModelFolderError` for what we cannot do."""
        return {}

    def table(self, c: Any) -> Sequence[Row | Stack]:
        """All tensors of a model of this configuration."""
        raise NotImplementedError

    def names(self, c: Any) -> set[str]:
        """The names of all tensors in the table."""
        return {name for row in self.table(c) for name in row.theirs if name is not None}

    def normalize_keys(self, theirs: Tensors, c: Any) -> Tensors:
        """Their tensors under the names of the table, without redundant ones."""
        theirs = {name: tensor for name, tensor in theirs.items() if not name.endswith(self.unused)}
        return with_head(theirs, self.embedding, self.head, tied=c.tied_head) if self.embedding else theirs

    def write_tensors(self, ours: Tensors, c: Any) -> Tensors:
        """Our tensors as theirs; what is tied stands in `ours` once, under its first name."""
        return write(self.table(c), ours)

    def read_tensors(self, theirs: Tensors, c: Any) -> Tensors:
        """Their tensors as ours. Raises as `weight_table.read`."""
        return read(self.table(c), self.normalize_keys(theirs, c))


def matches(c: Any, *, free: Collection[str], **fixed: Any) -> bool:
    """Whether transformers knows the activation, and all fields but `SIZES`, the `free` ones and those without effect
    have their `fixed` value or else their default. So a field that a family does not know must be at its default."""
    if c.activation not in KNOWN_ACTIVATIONS:
        return False
    skipped = {*SIZES, *free} | fields_without_meaning(c)
    fields = {name: field for name, field in type(c).model_fields.items() if name not in skipped}
    return all(getattr(c, name) == fixed.get(name, field.default) for name, field in fields.items())


def fields_without_meaning(c: Any) -> set[str]:
    """Fields of a `ModelConfig` or `EncoderConfig` that have no effect, because of other fields."""
    without_effect = {
        ("rotary_base", "rotary_fraction", "rotary_scaling"): c.positions != "rotary",
        ("rotary_base_local",): c.positions != "rotary" or not any(p.is_local for p in c.layer_masks()),
        ("relative_buckets", "relative_max_distance"): c.positions != "relative",
        ("sinusoid_layout",): c.positions != "sinusoidal",
        ("positioned_layers",): all(c.positioned_layers or ()) or c.positions not in ("rotary", "alibi", "relative"),
        ("feedforward_limit",): c.feedforward != "clamped",
        ("qk_norm_over",): not c.qk_norm,
        ("n_expert_active", "balance_weight", "expert_shares", "router_bias"): not c.n_expert,
        ("n_gram_rows",): c.n_gram == 1,
    }
    if isinstance(c, EncoderConfig):
        text = ("vocab_size", "n_gram", "n_gram_rows", "n_segments")
        without_effect |= {
            text: c.stem != "text",
            ("embedding_norm",): c.stem not in ("text", "patches"),
            ("image_size", "patch_size", "n_channels"): c.stem != "patches",
            ("n_mels",): c.stem != "frames",
            ("embedding_scale",): c.stem not in ("text", "patches"),
            ("tied_head", "head_bias", "logit_scale", "logit_softcap"): c.token_head != "vocabulary",
        }
    if isinstance(c, TrajectoryDecoderConfig):
        of_text = ("vocab_size", "n_gram", "n_gram_rows", "n_segments", "embedding_scale", "tied_head", "head_bias")
        without_effect |= {of_text: True}
    return {name for names, dead in without_effect.items() if dead for name in names}


def is_classifier(c: Any) -> TypeGuard[DecoderClassifierConfig]:
    """Whether it is that of a decoder with a head over classes."""
    return isinstance(c, DecoderClassifierConfig)


def heads_fill_the_width(c: Any) -> bool:
    """As many key-value heads as heads, and together as wide as the vectors: all that most families know."""
    return bool(c.n_kv_head == c.n_head and c.head_width * c.n_head == c.n_embd)


def activation(given: str) -> str:
    """Our name for an activation; what is unknown is refused by `ModelConfig`."""
    return OTHER_ACTIVATIONS.get(given, given)


def classes_of(given: dict[str, Any]) -> int:
    """How many classes a classifier's config.json names (2 where it names none, as in transformers). Raises
    `ModelFolderError` for regression and for several classes at a time."""
    n = len(given["id2label"]) if given.get("id2label") else given.get("num_labels", 2)
    problem = given.get("problem_type") or ("regression" if n == 1 else "single_label_classification")
    if problem != "single_label_classification":
        raise ModelFolderError(f"problem_type={problem} with {n} labels; only a choice of one class is read")
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


def refuse(given: dict[str, Any], *keys: str) -> None:
    """Raise for the first of these keys that is set: our models have nothing of the kind."""
    for key in keys:
        if given.get(key):
            raise ModelFolderError(f"config.json sets {key}, which our models cannot express")
