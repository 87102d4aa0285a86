"""A reward model at work: scores of texts and of chats, and the reward function that its folder is for roll-outs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from glassformer.data.chats import ChatRow, Turns
from glassformer.errors import GlassformerError, UsageError
from glassformer.generation.encoders import read_in_batches
from glassformer.hub import load
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.chat import check_messages
from glassformer.tasks.chats import chat_sequences

SCORED_ROWS = 16
"""Answers that are scored together."""


def rewards_of(model: Any, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """The reward of each row, (B,).

    Raises:
        UsageError: the model does not give one number a text.
    """
    return _one_number(model.sequence_logits(model(ids_BT, lengths_B), lengths_B))


def _one_number(rewards: Tensor) -> Tensor:
    if rewards.shape[1] != 1:
        raise UsageError(f"a reward is one number, and this model has {rewards.shape[1]} classes; train another")
    return rewards.squeeze(1)


def rewards_of_ids(model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """The reward of each sequence of ids."""

    def head(vectors_BTC: Tensor, lengths_B: Tensor) -> Tensor:
        return _one_number(model.sequence_logits(vectors_BTC, lengths_B))

    return [float(reward) for reward in read_in_batches(model, [list(ids) for ids in rows], SCORED_ROWS, head)]


def rewards(model: Any, tokenizer: Tokenizer, texts: Sequence[Turns]) -> list[float]:
    """The reward of each text, or of each chat (messages, of which the last is the assistant's answer); one longer
    than the model reads loses its end.

    Raises:
        UsageError: the model does not give one number a text; a text is empty; a chat ends with no answer, or the
            tokenizer has no chat template.
    """
    rows = [scored_ids(tokenizer, text, number)[: model.config.block_size] for number, text in enumerate(texts, 1)]
    return rewards_of_ids(model, rows)


def scored_ids(tokenizer: Tokenizer, text: Turns, number: int = 1) -> list[int]:
    """The ids of what is scored: those of training."""
    if isinstance(text, str):
        if not (ids := tokenizer.encode(text)):
            raise UsageError(f"text {number} is empty; give it one word or leave it out")
        return ids
    messages = check_messages(text)
    if messages[-1]["role"] != "assistant":
        raise UsageError(f"chat {number} ends with a turn of {messages[-1]['role']}; a reward is that of an answer")
    row = ChatRow(messages[:-1], place=f"chat {number}")
    return [int(i) for i in chat_sequences(tokenizer, row, messages[-1:])[-1].ids]


def set_padding(tokenizer: Tokenizer) -> None:
    """Let a tokenizer fill up rows with a token that ends no answer: transformers takes the number of the last token
    that is no padding, and published chat models often pad with the token that ends a turn."""
    ends = tokenizer.ends if tokenizer.chat_template is None else tokenizer.chat.turn_ends
    free = [text for text, i in tokenizer.special_tokens.items() if i not in ends]
    if tokenizer.settings.pop("pad_token", None) in free:
        return
    if free:
        tokenizer.settings["pad_token"] = free[0]


def reward_model(folder: str | os.PathLike[str], device: str = "cpu") -> Callable[..., list[float]]:
    """The reward function of a reward model's folder: reward(prompts, completions, **columns), as in TRL.

    Raises:
        UsageError: there is no model, or it is no reward model.
    """
    try:
        model, tokenizer = load(folder, device=device)
    except GlassformerError as error:
        raise UsageError(f"task.reward={folder}: {error}") from None
    if "class" not in model.answers or model.config.n_classes != 1 or model.reads != "text":
        raise UsageError(
            f"task.reward={folder} is a {type(model).__name__} that gives no reward; train one with task.kind=reward"
        )
    model.requires_grad_(False)

    def reward(prompts: Sequence[Turns], completions: Sequence[Turns], **columns: Any) -> list[float]:
        pairs = zip(prompts, completions, strict=True)
        texts: list[Any] = [p + c if isinstance(p, str) else [*p, *c] for p, c in pairs]  # type: ignore[operator, misc]
        return rewards(model, tokenizer, texts)

    return reward
