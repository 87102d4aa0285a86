"""Configurations of what has an encoder, checked once.

EncoderConfig          what comes in (text, patches of an image, frames of sound) and which head answers
EncoderDecoderConfig   an encoder and a decoder
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from glassformer.errors import UsageError
from glassformer.layers import Full, Graph
from glassformer.models.config import ModelConfig
from glassformer.models.mistakes import Checked
from glassformer.renamed import old_method

OF_IMAGES = ("image_size", "patch_size", "n_channels", "patch_convolutions")
"""Fields of an encoder-decoder that reads images."""
UNORDERED = ("set", "graph")
"""Stems of what has no order."""


class EncoderConfig(ModelConfig):
    """An encoder: a stem, blocks in which every token sees every token, and up to two questions at the end.

    stem: `text`, `patches` of an image (ViT), `frames` of sound (Whisper), a `set`, or a `graph`, whose nodes are a set
        and whose edges a layer may follow (`patterns=graph(1)`; on `patches` graph(n) is those at most n rows and
        columns away, and the tokens before them). For patches and frames `vocab_size` is 1 and unused; `block_size`
        counts what the stem gives: patches and the tokens before them, frames after the convolutions.
    image_size, patch_size, n_channels: of square images. n_mels: mel bands of a frame.
    n_inputs: numbers of each member of a set.
    patch_bias: on the linear layer that reads patches (CLIP has none). With patches, `embedding_norm` is a norm of
        what they and the class token have become with their positions (CLIP).
    patch_convolutions: patches are read by convolutions that halve the image, and not by one linear layer
        (`glassformer.models.stems.PatchConvolutions`).
    class_token: a learned vector stands before the patches. distillation: `token`: another one behind it (DeiT);
        `heads`: and a second head over the classes reads it.
    pooling: the vector of a sequence is that of its `first` token, the `mean` over its tokens, or, of what has no
        order, the `sum`, divided by the root of `block_size`, so that how many there are counts (Xu et al. 2019,
        https://arxiv.org/abs/1810.00826, eq. 4.2).
    pooler: it goes through one more layer with tanh (BERT). n_classes: what `sequence_logits` chooses from; 0: no such
        head. token_head: what `token_logits` chooses from: `none`, the `vocabulary` (masked tokens), or `classes`.
    number_mean, number_scale: where `n_classes` is 1, the number of a sequence is the mean plus the scale times the
        logit (`number`).
    token_transform: one more layer with activation and norm before the vocabulary (BERT).
    """

    _causal: ClassVar[bool] = False

    stem: Literal["text", "patches", "frames", "set", "graph"] = "text"
    image_size: int = Field(default=0, ge=0, le=100_000)
    patch_size: int = Field(default=0, ge=0, le=100_000)
    n_channels: int = Field(default=3, ge=1, le=1000)
    patch_bias: bool = True
    patch_convolutions: bool = False
    class_token: bool = True
    distillation: Literal["none", "token", "heads"] = "none"
    n_mels: int = Field(default=80, ge=1, le=10_000)
    n_inputs: int = Field(default=0, ge=0, le=1_000_000)
    pooling: Literal["first", "mean", "sum"] = "first"
    pooler: bool = False
    n_classes: int = Field(default=0, ge=0, le=1_000_000)
    token_head: Literal["none", "vocabulary", "classes"] = "none"
    number_mean: float = Field(default=0.0, allow_inf_nan=False)
    number_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    token_transform: bool = False

    @model_validator(mode="before")
    @classmethod
    def _count_patches(cls, fields: Any) -> Any:
        """`block_size` of an image encoder, where it is left out: the patches and the tokens before them."""
        if isinstance(fields, dict) and fields.get("stem") == "patches" and "block_size" not in fields:
            size, patch = fields.get("image_size"), fields.get("patch_size")
            if isinstance(size, int) and isinstance(patch, int) and patch > 0:
                before = bool(fields.get("class_token", True)) + (fields.get("distillation", "none") != "none")
                return {**fields, "block_size": (size // patch) ** 2 + before}
        if isinstance(fields, dict) and fields.get("stem") in UNORDERED:
            return {"positions": "none", "pooling": "mean", **fields}
        return fields

    @model_validator(mode="after")
    def _check_encoder(self) -> EncoderConfig:
        if self.stem == "patches":
            if not self.patch_size or self.image_size % self.patch_size or not self.image_size:
                raise UsageError(
                    f"image_size={self.image_size} is not divisible by patch_size={self.patch_size}; try patch_size=7"
                )
            self._check_patches()
        elif self.patch_convolutions or not self.patch_bias or not self.class_token or self.distillation != "none":
            raise UsageError(
                f"patch_bias, patch_convolutions, class_token and distillation are of images, and stem={self.stem}; "
                "leave them out"
            )
        self._check_order()
        if self.token_head == "classes" and not self.n_classes:
            raise UsageError("token_head=classes needs classes to choose from; set n_classes")
        return self

    def _check_order(self) -> None:
        """Whether what has no order is read without one."""
        if self.stem not in UNORDERED:
            if self.pooling == "sum":
                raise UsageError(f"pooling=sum is of sets and graphs, and stem={self.stem} is read in order; use mean")
            return
        if self.positions != "none" or self.pooling == "first":
            given = f"positions={self.positions}, pooling={self.pooling}"
            raise UsageError(f"stem={self.stem} has no order, and so no first member: not {given}; leave both out")
        if ordered := next((mask for mask in self.layer_masks() if not isinstance(mask, (Full, Graph))), None):
            raise UsageError(
                f"pattern {str(ordered)!r} needs an order, and stem={self.stem} has none; use full or graph(1)"
            )

    def _check_patches(self) -> None:
        n, before = self.n_patches, self.n_before
        if self.block_size != n + before:
            what = "patches and class token" if self.class_token else "patches"
            raise UsageError(f"block_size={self.block_size} where {what} are {n + before}; use block_size={n + before}")
        if self.patch_convolutions and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise UsageError(
                f"patch_convolutions halve the image, and patch_size={self.patch_size} is no power of 2; try 4"
            )
        if self.patch_convolutions and not self.patch_bias:
            raise UsageError(
                "patch_bias=false is of the linear layer, and patch_convolutions=true; leave one of them out"
            )
        if not self.class_token and (self.pooling == "first" or self.distillation != "none"):
            field = "pooling=first" if self.pooling == "first" else f"distillation={self.distillation}"
            raise UsageError(f"{field} needs the class token; use class_token=true, or pooling=mean without it")
        if self.distillation == "heads" and not self.has_classifier:
            raise UsageError("distillation=heads needs classes to choose from; set n_classes")

    @property
    def has_classifier(self) -> bool:
        """Whether there is a head over the classes of a sequence."""
        return self.n_classes > 0 and self.token_head != "classes"

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2 if self.stem == "patches" else 0

    @property
    def n_before(self) -> int:
        """Tokens that stand before the patches."""
        return int(self.class_token) + (self.distillation != "none") if self.stem == "patches" else 0

    @property
    def reads(self) -> str:
        return self.stem


class EncoderDecoderConfig(Checked):
    """An encoder that reads, a decoder that writes and listens to it by cross-attention.

    start_token: the decoder's input before the first token of its answer. end_token: the last token of an answer.
    pad_token: fills up shorter sequences of a batch; it is never looked at.
    shared_embedding: encoder and decoder (and a tied head) read and write with one table.

    Raises:
        UsageError: from `EncoderDecoderConfig.make`.
    """

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    encoder: EncoderConfig
    decoder: ModelConfig
    start_token: int = Field(ge=0)
    end_token: int = Field(ge=0)
    pad_token: int = Field(default=0, ge=0)
    shared_embedding: bool = True

    @model_validator(mode="after")
    def _check(self) -> EncoderDecoderConfig:
        e, d = self.encoder, self.decoder
        if e.n_embd != d.n_embd:
            raise UsageError(f"the encoder is {e.n_embd} wide and the decoder {d.n_embd}; give both the same n_embd")
        if d.parallel:
            raise UsageError("parallel=true does not fit a decoder with cross-attention; use parallel=false")
        if self.shared_embedding and (e.stem != "text" or e.vocab_size != d.vocab_size):
            raise UsageError(
                f"shared_embedding needs one vocabulary, not {e.vocab_size} and {d.vocab_size} tokens; use false"
            )
        for name in ("start_token", "end_token", "pad_token"):
            if (token := getattr(self, name)) >= d.vocab_size:
                raise UsageError(f"{name}={token} is not one of the decoder's {d.vocab_size} tokens")
        return self

    @classmethod
    def make_fields(cls) -> dict[str, FieldInfo]:
        """What `make` takes beside `encoder` and `decoder`, in place of both."""
        own = {name: field for name, field in cls.model_fields.items() if name not in ("kind", "encoder", "decoder")}
        both = ModelConfig.model_fields
        names = {"n_decoder_layer": "n_layer", "source_vocab_size": "vocab_size", "source_block_size": "block_size"}
        other = {name: EncoderConfig.model_fields[name] for name in ("n_mels", *OF_IMAGES)}
        return {**both, **own, **{name: both[as_] for name, as_ in names.items()}, **other}

    @classmethod
    def make(cls, **fields: Any) -> EncoderDecoderConfig:
        """Build a configuration. Without `encoder` and `decoder` both are made from the other fields, which are those
        of `ModelConfig`; `n_decoder_layer` may differ from `n_layer`, `source_vocab_size` from `vocab_size`, and
        `source_block_size` from `block_size`. With `n_mels` the encoder reads frames of sound, with the sines of a
        Whisper where no positions are given; with `image_size` the patches of an image, without a class token, since
        the decoder looks at all of them.

        Raises:
            UsageError: of one line, for every mistake.
        """
        if "encoder" not in fields and "decoder" not in fields:
            own = {name: fields.pop(name) for name in list(fields) if name in cls.model_fields}
            layers = fields.pop("n_decoder_layer", fields.get("n_layer"))
            sources = fields.pop("source_vocab_size", None) or fields.get("vocab_size")
            n_mels, longest = fields.pop("n_mels", None), fields.pop("source_block_size", None)
            given = {name: fields.pop(name) for name in OF_IMAGES if name in fields}
            images = {name: value for name, value in given.items() if value != EncoderConfig.model_fields[name].default}
            reading: dict[str, Any] = {"vocab_size": sources}
            if longest is not None:
                reading["block_size"] = longest
            if n_mels is not None:
                waves = {} if "positions" in fields else {"positions": "sinusoidal", "sinusoid_layout": "whisper"}
                reading |= {"vocab_size": 1, "stem": "frames", "n_mels": n_mels, **waves}
            if "image_size" in images:
                stem = {"stem": "patches", "class_token": False, "pooling": "mean"}
                patches = (images["image_size"] // max(1, images.get("patch_size", 0))) ** 2
                reading |= {"vocab_size": 1, "block_size": patches, **stem, **images}
            elif images:
                raise UsageError(f"model.{next(iter(images))} is of images, and this model reads none; leave it out")
            if reading["vocab_size"] != fields.get("vocab_size"):
                own.setdefault("shared_embedding", False)
            encoder = EncoderConfig.make(**{**fields, **reading})
            fields = {"encoder": encoder, "decoder": ModelConfig.make(**{**fields, "n_layer": layers}), **own}
        return super().make(**fields)

    parameter_count = old_method("models.parameter_count")

    @property
    def stacks(self) -> tuple[ModelConfig, ...]:
        """The configurations of both."""
        return self.encoder, self.decoder

    @property
    def reads(self) -> str:
        """What the encoder reads."""
        return self.encoder.reads

    @property
    def block_size(self) -> int:
        """The longest answer."""
        return self.decoder.block_size

    @property
    def vocab_size(self) -> int:
        """How many tokens the decoder chooses from."""
        return self.decoder.vocab_size

    @property
    def n_layer(self) -> int:
        """Layers of both."""
        return self.encoder.n_layer + self.decoder.n_layer
