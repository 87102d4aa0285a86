"""Two encoders, one of images and one of texts, whose vectors are compared: CLIP.

    image ──► encoder of patches ──► class token ──► linear layer ──► vector of length 1 ─┐
                                                                                          ├─► cosine x temperature
    text ──► causal Transformer ──► last token ──► linear layer ──► vector of length 1 ───┘

Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 2.3 and figure 3.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.models.config import ModelConfig
from glassformer.models.decoder_classifier import DecoderClassifier, DecoderClassifierConfig
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_config import EncoderConfig
from glassformer.models.mistakes import Checked
from glassformer.models.transformer import Model

FIRST_SCALE = math.log(1 / 0.07)
"""What the logarithm of the temperature's inverse begins with (section 2.5)."""
LARGEST_SCALE = math.log(100)
"""It is never used above this, where training becomes unstable (section 2.5)."""
OF_IMAGES = (
    *("image_size", "patch_size", "n_channels", "patch_bias", "patch_convolutions", "class_token", "pooling"),
    "embedding_norm",  # CLIP has one of patches and none of tokens
)
OF_TEXTS = ("vocab_size", "block_size")
OF_BOTH = ("n_text_layer", "n_joint", "end_token")


class DualEncoderConfig(Checked):
    """An encoder of images and one of texts, both with vectors of `n_joint` numbers, which are their `n_classes`.

    end_token: the last one of a text, whose vector stands for the whole.

    Raises:
        UsageError: from `DualEncoderConfig.make`.
    """

    kind: Literal["dual_encoder"] = "dual_encoder"
    image: EncoderConfig
    text: DecoderClassifierConfig
    end_token: int = Field(ge=0)

    @model_validator(mode="after")
    def _check(self) -> DualEncoderConfig:
        if self.image.stem != "patches":
            raise UsageError(f"stem={self.image.stem}: a dual encoder compares images with texts; use stem=patches")
        if self.image.n_classes != self.text.n_classes:
            raise UsageError(
                f"vectors of images have {self.image.n_classes} numbers and those of texts {self.text.n_classes}; give "
                "both the same n_classes"
            )
        if self.end_token >= self.text.vocab_size:
            raise UsageError(f"end_token={self.end_token} is not one of the {self.text.vocab_size} tokens of texts")
        return self

    @classmethod
    def make_fields(cls) -> dict[str, FieldInfo]:
        """What `make` takes beside `image` and `text`, in place of both."""
        of_images = {name: EncoderConfig.model_fields[name] for name in OF_IMAGES}
        both = ModelConfig.model_fields
        own = {"n_text_layer": both["n_layer"], "n_joint": both["n_embd"], "end_token": cls.model_fields["end_token"]}
        return {**both, **of_images, **own}

    @classmethod
    def make(cls, **fields: Any) -> DualEncoderConfig:
        """Build a configuration. Fields beside `image` and `text` are those of `ModelConfig`, for both, or take the
        place of what these two have; `block_size` and `vocab_size` are those of texts. `n_text_layer` may differ from
        `n_layer`, and `n_joint` from `n_embd`.

        Raises:
            UsageError: of one line, for every mistake.
        """
        known = cls.make_fields()
        image, text = (_as_dict(fields.pop(name, {})) for name in ("image", "text"))
        fields.pop("kind", None)
        if unknown := next((name for name in fields if name not in known), None):
            raise UsageError(f"unknown key model.{unknown}; a dual encoder has {', '.join(sorted(known))}")
        if {"image_size", "patch_size", "class_token"} & fields.keys():
            image.pop("block_size", None)  # it follows from these
        layers, joint, end = (fields.pop(name, None) for name in OF_BOTH)
        image |= {name: value for name, value in fields.items() if name not in OF_TEXTS}
        text |= {name: value for name, value in fields.items() if name not in OF_IMAGES}
        text |= {} if layers is None else {"n_layer": layers}
        both = {} if joint is None else {"n_classes": joint}
        text = {"n_classes": text.get("n_embd"), **text, **both}
        image = {"stem": "patches", "vocab_size": 1, "n_classes": text["n_classes"], **image, **both}
        made = EncoderConfig.make(**image), DecoderClassifierConfig.make(**text)
        return super().make(image=made[0], text=made[1], **({} if end is None else {"end_token": end}))

    def value_of(self, name: str) -> Any:
        """The value of a field that `make` takes; both in words where the two differ."""
        if name in ("n_text_layer", "n_layer"):
            return (self.image if name == "n_layer" else self.text).n_layer
        if name in OF_IMAGES or name in (*OF_TEXTS, *OF_BOTH):
            return getattr(self.image if name in OF_IMAGES else self, name)
        first, second = getattr(self.image, name, None), getattr(self.text, name, None)
        return first if first == second else f"{first} and {second}"

    @property
    def stacks(self) -> tuple[ModelConfig, ...]:
        """The configurations of both."""
        return self.image, self.text

    @property
    def reads(self) -> str:
        return "image_text"

    @property
    def n_joint(self) -> int:
        """Numbers of the vectors that are compared."""
        return self.text.n_classes

    @property
    def block_size(self) -> int:
        """Tokens of the longest text."""
        return self.text.block_size

    @property
    def vocab_size(self) -> int:
        """Tokens of texts."""
        return self.text.vocab_size

    @property
    def n_layer(self) -> int:
        """Layers of both."""
        return self.image.n_layer + self.text.n_layer


def _as_dict(half: Any) -> dict[str, Any]:
    return dict(half) if isinstance(half, dict) else half.model_dump()  # type: ignore[no-any-return]


class DualEncoder(Model):
    """Images (B, channels, size, size) and texts (N, T) -> logits (B, N): how well each image and each text fit.

    A text ends with `config.end_token`, whose vector stands for it, since that alone has read all others.
    """

    answers = frozenset({"similarity"})
    config: DualEncoderConfig

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.config = config
        self.image = Encoder(config.image)
        self.image.classifier = nn.Linear(config.image.n_embd, config.n_joint, bias=False)
        self.text = DecoderClassifier(config.text)
        self.logit_scale = nn.Parameter(torch.tensor([FIRST_SCALE]))
        self.init_weights()

    def forward(self, images: Tensor, ids_NT: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """(B, N)."""
        return self.compare(self.image_vectors(images), self.text_vectors(ids_NT, lengths_N))

    def image_vectors(self, images: Tensor) -> Tensor:
        """(B, n_joint), of length 1."""
        return F.normalize(self.image.sequence_logits(self.image(images)), dim=-1)

    def text_vectors(self, ids_NT: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """(N, n_joint), of length 1. lengths: of the texts with their end token; left out, they end with the first.

        Raises:
            UsageError: a text has no end.
        """
        if lengths_N is None:
            ends_NT = ids_NT == self.config.end_token
            if not ends_NT.any(dim=1).all():
                raise UsageError(f"a text does not end with the token {self.config.end_token}; add it, or give lengths")
            lengths_N = ends_NT.int().argmax(dim=1) + 1
        return F.normalize(self.text.sequence_logits(self.text(ids_NT), lengths_N), dim=-1)

    def compare(self, images_BE: Tensor, texts_NE: Tensor) -> Tensor:
        """Cosines by the learned temperature, (B, N): the logits of a choice among either."""
        return self.logit_scale.clamp(max=LARGEST_SCALE).exp() * images_BE @ texts_NE.T
