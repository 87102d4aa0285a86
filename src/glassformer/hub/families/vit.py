"""ViT and DeiT: an encoder over the patches of an image, which classifies it.

    vit     ViTForImageClassification                  a class token before the patches
    deit    DeiTForImageClassification                 and a distillation token behind it
            DeiTForImageClassificationWithTeacher      which has a head too; logits are the mean of both

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; Touvron et al. 2020, https://arxiv.org/abs/2012.12877.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.hub.families.bert import ENCODER_DEFAULTS, ENCODER_KEYS, encoder_rows
from glassformer.hub.families.family import Family, classes_of, heads_fill_the_width
from glassformer.hub.families.weight_table import UNSQUEEZE, Row, layer, one
from glassformer.models import EncoderConfig


class ViT(Family):
    """`vit`. Biases are always there; those that ours lacks are zeros."""

    model_type = "vit"
    architecture = "ViTForImageClassification"
    distillation: ClassVar[dict[str, str]] = {"ViTForImageClassification": "none"}  # by architecture
    configuration = EncoderConfig
    keys: ClassVar = {
        **ENCODER_KEYS,
        "image_size": "image_size",
        "patch_size": "patch_size",
        "num_channels": "n_channels",
    }
    defaults: ClassVar = {**ENCODER_DEFAULTS, "num_channels": 3}
    constants: ClassVar = {"qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fixed: ClassVar = {
        "stem": "patches",
        "positions": "learned",
        "norm": "layernorm",
        "feedforward": "plain",
        "qk_norm": False,
    }
    free = frozenset({"bias", "n_classes", "distillation"})
    base_prefix = "vit."

    def fits(self, c: EncoderConfig) -> bool:
        return heads_fill_the_width(c) and c.n_classes > 0 and c.distillation in self.distillation.values()

    def extra_keys(self, c: EncoderConfig) -> dict[str, Any]:
        architecture = next(name for name, kind in self.distillation.items() if kind == c.distillation)
        return {"architectures": [architecture], "num_labels": c.n_classes}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("qkv_bias", True):
            raise ModelFolderError("config.json sets qkv_bias=false, which our models cannot express")
        architecture = (given.get("architectures") or [self.architecture])[0]
        if architecture not in self.distillation:
            known = did_you_mean(str(architecture), self.distillation)
            raise ModelFolderError(f"{architecture!r} is not a {self.model_type} that glassformer reads; {known}")
        kind = self.distillation[architecture]
        before = 1 + (kind != "none")
        n_patches = (given["image_size"] // max(given["patch_size"], 1)) ** 2
        sizes = {"vocab_size": 1, "block_size": n_patches + before, "n_classes": classes_of(given)}
        return {**sizes, "distillation": kind}

    def table(self, c: EncoderConfig) -> list[Row]:
        base = self.base_prefix
        rows = [
            *layer("embedding.patch", f"{base}embeddings.patch_embeddings.projection"),
            one("embedding.class_token", f"{base}embeddings.cls_token"),
            one("positions.weight", f"{base}embeddings.position_embeddings", UNSQUEEZE),
        ]
        if c.distillation != "none":
            rows.append(one("embedding.distillation_token", f"{base}embeddings.distillation_token"))
        for number in range(c.n_layer):
            there = f"{base}encoder.layer.{number}"
            norms = f"{there}.layernorm_before", f"{there}.layernorm_after"
            rows += encoder_rows(f"blocks.{number}", there, f"{there}.attention.attention", *norms)
        rows += layer("final_norm", f"{base}layernorm")
        if c.distillation != "heads":
            return [*rows, *layer("classifier", "classifier")]
        heads = layer("classifier", "cls_classifier"), layer("distillation_classifier", "distillation_classifier")
        return [*rows, *heads[0], *heads[1]]


class DeiT(ViT):
    """`deit`: with a distillation token, with its head or without."""

    model_type = "deit"
    architecture = "DeiTForImageClassification"
    distillation: ClassVar = {
        "DeiTForImageClassification": "token",
        "DeiTForImageClassificationWithTeacher": "heads",
    }
    base_prefix = "deit."
