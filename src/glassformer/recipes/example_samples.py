"""What a model of each objective makes of a few held-out examples, as text to read along the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from glassformer.data.examples import spread
from glassformer.generation.seq2seq import answer_ids, plain_text
from glassformer.tasks import MaskedTokens, SequenceClass, Spans, TargetSentence
from glassformer.tasks.cross_entropy import IGNORED
from glassformer.tasks.objective import of_class

if TYPE_CHECKING:
    from glassformer.recipes.example_task import ExampleTask

SHOWN = 3  # examples
LONGEST = 200  # characters of each that are shown


def _answers(task: ExampleTask, model: Any) -> str:
    """Source, what the model says (the likeliest token each time), and what it should say."""
    lines = []
    for source, target in _first(task, model):
        said = answer_ids(model, [source.tolist()], beam=1)[0].tokens
        reader = task.source_tokenizer or task.tokenizer
        lines += [
            f"source: {_short(plain_text(reader, source.tolist()))}",
            f"model:  {_short(plain_text(task.tokenizer, said))}",
            f"meant:  {_short(plain_text(task.tokenizer, target.tolist()))}",
            "",
        ]
    return "\n".join(lines)


def _spans(task: ExampleTask, model: Any) -> str:
    """The same, for a text with spans taken out."""
    objective, lines = task.objective(), []
    for number, ids in enumerate(_first(task, model)):
        source_BS, _, _, target_BT = objective.collate([ids[:64]], np.random.default_rng(number))
        said = answer_ids(model, [source_BS[0].tolist()], beam=1)[0].tokens
        meant = target_BT[0][target_BT[0] != IGNORED].tolist()
        lines += [f"source: {_tokens(task, source_BS[0].tolist())}", f"model:  {_tokens(task, said)}"]
        lines += [f"meant:  {_tokens(task, meant)}", ""]
    return "\n".join(lines)


def _masked(task: ExampleTask, model: Any) -> str:
    """A text with tokens hidden, and for each what the model holds likeliest / what stood there."""
    objective, lines = task.objective(), []
    for number, ids in enumerate(_first(task, model)):
        inputs_BT, lengths_B, targets_BT = objective.collate([ids[:64]], np.random.default_rng(number))
        device = next(model.parameters()).device
        vectors_BTC = model(inputs_BT.to(device), lengths_B.to(device))
        guesses_BT = model.token_logits(vectors_BTC).argmax(dim=-1).cpu()
        asked = (targets_BT[0] != IGNORED).nonzero().flatten().tolist()
        found = [
            f"{task.tokenizer.token_text(int(guesses_BT[0, i]))!r}/{task.tokenizer.token_text(int(targets_BT[0, i]))!r}"
            for i in asked
        ]
        lines += [f"text:        {_tokens(task, inputs_BT[0].tolist())}", f"model/meant: {', '.join(found)}", ""]
    return "\n".join(lines)


def _classes(task: ExampleTask, model: Any) -> str:
    """A text, the probability of each class, and the class it has."""
    objective, lines = task.objective(), []
    device = next(model.parameters()).device
    for example in _first(task, model):
        inputs_BT, lengths_B, labels_B = objective.collate([example], np.random.default_rng(0))
        lengths_B = lengths_B.to(device)
        chances_B = model.sequence_logits(model(inputs_BT.to(device), lengths_B), lengths_B).softmax(dim=-1)[0]
        told = ", ".join(f"{label} {float(p):.2f}" for label, p in zip(task.labels, chances_B, strict=True))
        lines += [f"text:  {_short(task.tokenizer.decode(example[0]))}", f"model: {told}"]
        lines += [f"meant: {task.labels[int(labels_B[0])]}", ""]
    return "\n".join(lines)


def _first(task: ExampleTask, model: Any) -> list[Any]:
    """A few of the validation split, spread over it."""
    return spread(task.encoded("validation", model.config.block_size), SHOWN)


def _tokens(task: ExampleTask, ids: Sequence[int]) -> str:
    """Text with its special tokens, which `decode` leaves out."""
    special = {i: text for text, i in task.tokenizer.special_tokens.items()}
    text = ""
    plain: list[int] = []
    for i in [*ids, -1]:
        if i in special or i < 0:
            text += task.tokenizer.decode(plain) + special.get(i, "")
            plain = []
        else:
            plain.append(i)
    return _short(text)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


SAMPLES: dict[type, Callable[[ExampleTask, Any], str]] = {
    TargetSentence: _answers,
    Spans: _spans,
    MaskedTokens: _masked,
    SequenceClass: _classes,
}


def sample(task: ExampleTask, model: Any) -> str:
    """What the model makes of a few held-out examples; nothing for an objective that has no such text."""
    write = of_class(SAMPLES, type(task.objective()), None)
    with torch.inference_mode():
        return "" if write is None else write(task, model)
