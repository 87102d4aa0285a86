"""A chat model that knows nothing yet, and preferences, for the tests of methods that learn from them."""

from __future__ import annotations

import json

import torch

from glassformer.hub import save
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks.chats import CHAT_TOKENS, use_template

COMMON = ["training.batch_size=8", "training.precision=fp32", "training.optimizer=adamw"]
WORDS = ["one", "two", "three", "four", "five"]


def user(text):
    return [{"role": "user", "content": text}]


def answer(text):
    return [{"role": "assistant", "content": text}]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def split(i):
    return "validation" if i % 5 == 0 else "train"


def random_model(tokenizer, seed, block_size=32):
    torch.manual_seed(seed)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": block_size, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = Decoder(ModelConfig.make(family="modern", **fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def chat_tokenizer():
    made = build_tokenizer("bpe", ["good day bad night " + " ".join(WORDS)] * 9, vocab_size=290, specials=CHAT_TOKENS)
    use_template(made, None, [])
    return made


def chat_model(folder, tokenizer):
    """A chat model that knows nothing yet, as a folder."""
    torch.manual_seed(3)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": 48, "n_layer": 2, "n_head": 2, "n_embd": 16}
    save(folder, Decoder(ModelConfig.make(family="modern", **fields)), tokenizer)
    return folder


def preference_file(path):
    rows = [
        {
            "prompt": user(f"{WORDS[i % 5]} {WORDS[i // 5 % 5]}"),
            "chosen": answer(f"good {WORDS[i % 3]}"),
            "rejected": answer(f"bad {WORDS[i % 4]}"),
            "split": split(i),
        }
        for i in range(40)
    ]
    return written(path, rows)
