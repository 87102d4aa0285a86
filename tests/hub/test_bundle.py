"""`gf.load` gives a Bundle: a model with its processors and labels, for text and for images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_model

import glassformer as gf
from glassformer.errors import ModelFolderError
from glassformer.models import build_model, make_config
from glassformer.processors.image import ImageProcessor
from glassformer.processors.tokenizers import TOKENIZERS


def image_classifier():
    shape = {"vocab_size": 1, "block_size": 5, "n_layer": 1, "n_head": 1, "n_embd": 8}
    return build_model(
        make_config("encoder", **shape, stem="patches", image_size=8, patch_size=4, n_channels=1, n_classes=3)
    )


def test_a_bundle_unpacks_as_model_and_tokenizer(tmp_path: Path):
    tokenizer = TOKENIZERS["bytes"]()
    gf.save(tmp_path, toy_model(vocab_size=257), tokenizer)
    bundle = gf.load(tmp_path)
    model, again = bundle
    assert (model, again) == (bundle.model, bundle.tokenizer) == (bundle[0], bundle[1])
    assert again == tokenizer == bundle.processor and bundle.source_processor is bundle.processor
    assert bundle.labels == ()


def test_an_image_classifier_has_an_image_processor_and_labels(tmp_path: Path):
    processor = ImageProcessor(size=(8, 8), mean=(0.25,), std=(0.75,))
    gf.save(tmp_path / "one", gf.Bundle(image_classifier(), processor, labels=("zero", "one", "two")))
    bundle = gf.load(tmp_path / "one")
    assert (bundle.processor, bundle.tokenizer, bundle.labels) == (processor, None, ("zero", "one", "two"))
    gf.save(tmp_path / "two", bundle)
    again = gf.load(tmp_path / "two")
    assert (again.processor, again.labels) == (processor, bundle.labels)
    pixels = torch.from_numpy(again.processor.encode(np.full((8, 8), 128, dtype=np.uint8)))[None]
    assert torch.equal(again.model(pixels), bundle.model(pixels))


def test_a_translator_has_a_processor_for_each_side(tmp_path: Path):
    side = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 16}
    french, english = TOKENIZERS["characters"](["bonjour"]), TOKENIZERS["characters"](["good day"])
    sides = {
        "encoder": {**side, "vocab_size": english.vocab_size},
        "decoder": {**side, "vocab_size": french.vocab_size},
    }
    model = build_model(make_config("encoder_decoder", **sides, shared_embedding=False, start_token=0, end_token=1))
    gf.save(tmp_path / "one", gf.Bundle(model, french, english))
    bundle = gf.load(tmp_path / "one")
    assert (bundle.processor, bundle.source_processor) == (french, english)
    gf.save(tmp_path / "two", bundle)
    assert gf.load(tmp_path / "two").source_processor == english


def test_a_processor_may_be_missing_but_not_damaged(tmp_path: Path):
    gf.save(tmp_path, image_classifier())
    assert gf.load(tmp_path).processor is None
    gf.save(tmp_path, image_classifier(), ImageProcessor(size=(8, 8), mean=(0.5,), std=(0.5,)))
    (tmp_path / "preprocessor_config.json").write_text('{"size": 0}')
    with pytest.raises(ModelFolderError, match=r"preprocessor_config\.json.*size"):
        gf.load(tmp_path)
