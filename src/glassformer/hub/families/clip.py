"""CLIP: an encoder of images and one of texts, whose vectors are compared. `CLIPModel`.

Radford et al. 2021, https://arxiv.org/abs/2103.00020. Patches are read without a bias and then normalised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.hub.families.family import STACK_KEYS, Family, activation, heads_fill_the_width, matches
from glassformer.hub.families.weight_table import Layout, Row, layer, one
from glassformer.models import DualEncoderConfig
from glassformer.models.dual_encoder import FIRST_SCALE

HALF_KEYS = {**STACK_KEYS, "layer_norm_eps": "norm_eps"}
TEXT_KEYS = {**HALF_KEYS, "vocab_size": "vocab_size", "max_position_embeddings": "block_size"}
IMAGE_KEYS = {**HALF_KEYS, "image_size": "image_size", "patch_size": "patch_size", "num_channels": "n_channels"}
HALF_DEFAULTS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT_DEFAULTS = {
    **HALF_DEFAULTS, "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "max_position_embeddings": 77, "eos_token_id": 49407,
}  # fmt: skip
IMAGE_DEFAULTS = {
    **HALF_DEFAULTS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
    "patch_size": 32, "num_channels": 3,
}  # fmt: skip
HALF_FIXED = {"positions": "learned", "norm": "layernorm", "feedforward": "plain", "qk_norm": False, "bias": True}
IMAGE_FIXED = {**HALF_FIXED, "stem": "patches", "embedding_norm": True, "patch_bias": False}
FREE = {"n_kv_head", "head_width", "n_classes", "tied_head", "head_bias"}  # there is no head over tokens
OLD_END = 2
"""An `eos_token_id` of old files that is not that of their texts, which end with the last token of the vocabulary."""
CLASS_TOKEN = Layout(lambda ours: ours[0, 0], lambda theirs: theirs[None, None])
SCALE = Layout(lambda ours: ours[0], lambda theirs: theirs[None])


class CLIP(Family):
    """`clip`."""

    model_type = "clip"
    architecture = "CLIPModel"
    configuration = DualEncoderConfig
    base_prefix = ""
    unused: ClassVar = ("position_ids",)

    def can_represent(self, c: DualEncoderConfig) -> bool:
        halves = (c.image, IMAGE_KEYS, IMAGE_FIXED), (c.text, TEXT_KEYS, HALF_FIXED)
        return c.end_token != OLD_END and all(
            matches(half, free={*keys.values(), *FREE}, **fixed) and heads_fill_the_width(half)
            for half, keys, fixed in halves
        )

    def write_config(self, c: DualEncoderConfig) -> dict[str, Any]:
        text = {key: getattr(c.text, field) for key, field in TEXT_KEYS.items()}
        image = {key: getattr(c.image, field) for key, field in IMAGE_KEYS.items()}
        joint = {"projection_dim": c.n_joint}
        return {
            "architectures": [self.architecture],
            **joint,
            "logit_scale_init_value": FIRST_SCALE,
            # the beginning and the padding that are the defaults there are tokens of OpenAI's vocabulary
            "text_config": {**text, **joint, "bos_token_id": None, "pad_token_id": None, "eos_token_id": c.end_token},
            "vision_config": {**image, **joint},
        }

    def read_config(self, given: dict[str, Any]) -> DualEncoderConfig:
        text, image = {**TEXT_DEFAULTS, **given["text_config"]}, {**IMAGE_DEFAULTS, **given["vision_config"]}
        halves = []
        for keys, half, fixed in ((IMAGE_KEYS, image, IMAGE_FIXED), (TEXT_KEYS, text, HALF_FIXED)):
            fields = {field: half[key] for key, field in keys.items()}
            halves.append({**fixed, **fields, "activation": activation(fields["activation"])})
        end = text["eos_token_id"]
        return DualEncoderConfig.make(
            image=halves[0],
            text=halves[1],
            n_joint=given.get("projection_dim", 512),
            end_token=text["vocab_size"] - 1 if end == OLD_END else end,
        )

    def table(self, c: DualEncoderConfig) -> list[Row]:
        return [
            one("logit_scale", "logit_scale", SCALE),
            one("text.embedding.token.weight", "text_model.embeddings.token_embedding.weight"),
            one("text.positions.weight", "text_model.embeddings.position_embedding.weight"),
            *_blocks("text", "text_model", c.text.n_layer),
            *layer("text.final_norm", "text_model.final_layer_norm"),
            one("image.embedding.class_token", "vision_model.embeddings.class_embedding", CLASS_TOKEN),
            one("image.embedding.patch.weight", "vision_model.embeddings.patch_embedding.weight"),
            one("image.positions.weight", "vision_model.embeddings.position_embedding.weight"),
            *layer("image.embedding.norm", "vision_model.pre_layrnorm"),
            *_blocks("image", "vision_model", c.image.n_layer),
            *layer("image.final_norm", "vision_model.post_layernorm"),
            one("image.classifier.weight", "visual_projection.weight"),
            one("text.classifier.weight", "text_projection.weight"),
        ]


def _blocks(ours: str, theirs: str, n_layer: int) -> Iterable[Row]:
    for number in range(n_layer):
        here, there = f"{ours}.blocks.{number}", f"{theirs}.encoder.layers.{number}"
        yield from layer(f"{here}.attention.qkv", *(f"{there}.self_attn.{part}_proj" for part in "qkv"))
        yield from layer(f"{here}.attention.out", f"{there}.self_attn.out_proj")
        yield from layer(f"{here}.attention_norm", f"{there}.layer_norm1")
        yield from layer(f"{here}.feedforward.up", f"{there}.mlp.fc1")
        yield from layer(f"{here}.feedforward.down", f"{there}.mlp.fc2")
        yield from layer(f"{here}.feedforward_norm", f"{there}.layer_norm2")
