"""Fixtures of tests of methods that learn from preferences; other files have their own of the same names."""

import pytest
from command_line import glassformer, refused
from preference_sets import chat_model, chat_tokenizer, preference_file

__all__ = ["glassformer", "refused"]


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer):
    return chat_model(tmp_path_factory.mktemp("start") / "model", tokenizer)


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    return preference_file(tmp_path_factory.mktemp("data") / "preferences.jsonl")
