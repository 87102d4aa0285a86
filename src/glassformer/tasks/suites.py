"""A language model answers the questions of a suite.

    example \\n\\n example \\n\\n question ──► log p of each choice        multiple choice
                                         ──► greedy text up to a stop   exact match

Text is cut into tokens as lm-evaluation-harness does: prompt and choice together, and the tokens beyond those of the
prompt are the choice's. With `chat` the examples are turns of a chat, and answers the assistant's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from glassformer.data.batches import IGNORED, philox
from glassformer.data.chats import ChatRow
from glassformer.data.example_splits import spread
from glassformer.data.questions import TRAIN, Question, examples_and_questions
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.suites import Answer, SuiteScores, chosen, chrf_of, matched
from glassformer.generation import Engine, Request, Sampling
from glassformer.generation.eval_mode import evaluating
from glassformer.processors.tokenizers import Tokenizer
from glassformer.progress import Progress
from glassformer.tasks.chats import chat_sequences
from glassformer.tasks.losses import padded, token_log_probs

BETWEEN = "\n\n"
"""Between two examples; also where a generated answer ends by default."""
BATCH_TOKENS = 4096
_SHOTS = 81  # a stream of random numbers


def answer_suite(
    model: Any,
    tokenizer: Tokenizer,
    rows: Sequence[Question],
    *,
    name: str = "",
    shots: int = 0,
    seed: int = 0,
    chat: bool = False,
    split: str | None = None,
    limit: int | None = None,
    stop: Sequence[str] = (BETWEEN,),
    max_new_tokens: int = 64,
    pattern: re.Pattern[str] | None = None,
    chrf: bool = False,
    quiet: bool = True,
) -> SuiteScores:
    """Ask a model that continues texts the questions of a suite.

    Args:
        shots: examples before each question, drawn for it by the seed from the rows of the split `train`; without such
            rows they are the first ones, in an order drawn by the seed. chat: through the chat template.
        split: of the questions; None: all but `train`. limit: so many questions, spread over the suite.
        stop, max_new_tokens: where a generated answer ends; in a chat also at the end of its turn.
        pattern: what is compared of a generated answer; see `evaluation.suites.matched`. chrf: also how near generated
            answers come to the right ones.

    Raises:
        UsageError: the model does not continue texts; there are too few examples, or no chat template; questions do not
            fit into the model (how many is stated).
        DataError: a prompt is empty in this vocabulary.
    """
    if "next_token" not in model.answers:
        raise UsageError(f"a suite needs a model that continues texts, and a {type(model).__name__} does not")
    if chat and tokenizer.chat_template is None:
        raise UsageError("this model has no chat template; leave out --chat")
    examples, asked = examples_and_questions(rows, shots, split)
    asked = spread(asked, limit) if limit is not None else asked
    shown = [_examples(examples, shots, seed, number) for number in range(len(asked))]
    places = {kind: [i for i, q in enumerate(asked) if q.kind == kind] for kind in ("multiple choice", "exact match")}
    choices = [_choice_ids(tokenizer, shown[i], asked[i], chat) for i in places["multiple choice"]]
    prompts = [_prompt_ids(tokenizer, shown[i], asked[i], chat) for i in places["exact match"]]
    longest = [max(len(ids) - 1 for ids, _ in rows) for rows in choices]
    _check_fit(longest + [len(ids) + max_new_tokens for ids in prompts], model.config.block_size, shots)
    answers: dict[int, Answer] = {}
    total = sum(map(len, choices)) + len(prompts)
    with Progress(f"asking {name}", total, enabled=not quiet, unit="answers") as bar, evaluating(model):
        for i, sums in zip(places["multiple choice"], _log_probs(model, choices, bar), strict=True):
            answers[i] = chosen(asked[i], sums)
        texts = _generated(model, tokenizer, prompts, bar, chat, tuple(stop), max_new_tokens)
        for i, text in zip(places["exact match"], texts, strict=True):
            answers[i] = matched(asked[i], text, pattern)
    in_order = [answers[i] for i in range(len(asked))]
    return SuiteScores(name, shots, seed, chat, in_order, chrf_of(in_order) if chrf else None)


def answer_by_shots(
    model: Any, tokenizer: Tokenizer, rows: Sequence[Question], shots: Sequence[int], **asking: Any
) -> list[SuiteScores]:
    """`answer_suite` for each of several numbers of examples: the same questions each time, and of a question's
    examples the first ones."""
    if len(shots) > 1 and not any(row.split == TRAIN for row in rows):
        most = max(shots)
        rows = [replace(row, split=TRAIN) if i < most else row for i, row in enumerate(rows)]
    return [answer_suite(model, tokenizer, rows, shots=n, **asking) for n in shots]


def _examples(examples: Sequence[Question], shots: int, seed: int, number: int) -> list[Question]:
    """Those shown before question `number`."""
    if not shots:
        return []
    return [examples[i] for i in philox(seed, _SHOTS, number).permutation(len(examples))[:shots]]


def _check_fit(lengths: Sequence[int], block_size: int, shots: int) -> None:
    if too_long := sum(length > block_size for length in lengths):
        step = "fewer --shots" if shots else "a model that reads more, or leave them out"
        raise UsageError(
            f"{too_long:,} of {len(lengths):,} questions with {shots} examples do not fit: the longest takes "
            f"{max(lengths):,} tokens and the model reads {block_size:,}; use {step}"
        )


def _text(shown: Sequence[Question], asked: Question) -> str:
    """Examples with their answers and the question, up to where its answer begins."""
    return BETWEEN.join([*(q.shown for q in shown), asked.prompt])


def _turns(shown: Sequence[Question], asked: Question) -> list[dict[str, Any]]:
    pairs = [(q.prompt, q.answer_shown) for q in shown]
    turns = [turn for user, answer in pairs for turn in (("user", user), ("assistant", answer))]
    return [{"role": role, "content": content} for role, content in [*turns, ("user", asked.prompt)]]


def _prompt_ids(tokenizer: Tokenizer, shown: Sequence[Question], asked: Question, chat: bool) -> list[int]:
    """The ids before an answer that is generated."""
    if chat:
        return tokenizer.chat.encode(_turns(shown, asked))
    return _read_ids(tokenizer, _text(shown, asked), asked)


def _read_ids(tokenizer: Tokenizer, text: str, asked: Question) -> list[int]:
    first = [] if tokenizer.starts_with is None else [tokenizer.starts_with]
    if not (ids := tokenizer.encode(text)):
        raise DataError(f"{asked.place}: the prompt is empty in this vocabulary; leave the row out")
    return [*first, *ids]


def _choice_ids(
    tokenizer: Tokenizer, shown: Sequence[Question], asked: Question, chat: bool
) -> list[tuple[list[int], int]]:
    """Of each choice: the ids of the prompt with it, and how many of these are the prompt's."""
    found = []
    if chat:
        row = ChatRow(_turns(shown, asked), place=asked.place)
        for choice in asked.choices:
            (sequence,) = chat_sequences(tokenizer, row, [{"role": "assistant", "content": choice}])
            found.append((sequence.ids[:-1].tolist(), int(sequence.trained.argmax())))  # without the end of the turn
        return found
    text = _text(shown, asked)
    before = _read_ids(tokenizer, text.rstrip(), asked)
    for choice in asked.choices:
        ids = _read_ids(tokenizer, f"{text}{asked.delimiter}{choice}", asked)
        found.append((ids, min(len(before), len(ids) - 1)))
    return found


def _log_probs(model: Any, questions: Sequence[Sequence[tuple[list[int], int]]], bar: Progress) -> list[list[float]]:
    """log p of every choice of every question, in nats. Choices of one token are read off one row."""
    device = next(model.parameters()).device
    rows = [(number, ids, start) for number, choices in enumerate(questions) for ids, start in choices]
    by_inputs: dict[tuple[int, ...], list[int]] = {}
    for i, (_, ids, _) in enumerate(rows):
        by_inputs.setdefault(tuple(ids[:-1]), []).append(i)
    left = sorted(by_inputs, key=lambda inputs: -len(inputs))
    sums: dict[int, float] = {}
    while left:
        n = max(1, BATCH_TOKENS // len(left[0]))
        batch, left = left[:n], left[n:]
        places = [i for inputs in batch for i in by_inputs[inputs]]
        inputs_BT, _ = padded(batch, 0)
        targets = [[IGNORED] * (start - 1) + ids[start:] for _, ids, start in (rows[i] for i in places)]
        targets_NT, _ = padded(targets, IGNORED)
        read_N = torch.tensor([b for b, inputs in enumerate(batch) for _ in by_inputs[inputs]], device=device)
        log_probs_NT = token_log_probs(model, inputs_BT.to(device), targets_NT.to(device), rows_N=read_N)
        sums |= dict(zip(places, log_probs_NT.sum(dim=1, dtype=torch.float64).tolist(), strict=True))
        bar.advance(len(places))
    found: list[list[float]] = [[] for _ in questions]
    for i, (number, _, _) in enumerate(rows):
        found[number].append(sums[i])
    return found


def _generated(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    bar: Progress,
    chat: bool,
    stop: tuple[str, ...],
    most: int,
) -> list[str]:
    """The most likely continuation of every prompt, without what ends it."""
    if not prompts:
        return []
    engine = Engine(model, tokenizer)
    ends = frozenset(tokenizer.chat.turn_ends) if chat else None
    greedy = Sampling(temperature=0.0)
    requests = [
        Request(ids=tuple(ids), max_new_tokens=most, sampling=greedy, stop=stop, end_tokens=ends) for ids in prompts
    ]
    texts = dict.fromkeys(numbers := [engine.submit(request) for request in requests], "")
    for event in engine.run():
        if event.piece is not None:
            texts[event.request] += event.piece.text
            bar.advance(event.piece.finish_reason is not None)
    return [texts[number] for number in numbers]
