"""The chain: reviews, a language model, its fine-tuning, rankings by the gold classifier, a reward model, five methods.

reviews ──► start ──► sft ──┬─ answers ──gold──► rankings ──┬──► dpo
                            │                               └──► reward ──► ppo, grpo, best-of-n, rejection
                            └─► measured: gold reward, proxy reward, KL to sft, distinct tokens
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from glassformer.alignment.gold import Gold
from glassformer.alignment.measure import Prompts, best_of_n, measure, scores
from glassformer.alignment.results import results
from glassformer.alignment.settings import FULL, Settings
from glassformer.alignment.stages import Log, Stages, checkpoints, model_of, write_rows
from glassformer.data.batches import philox
from glassformer.data.chats import ChatRow
from glassformer.data.examples import Examples, load_examples
from glassformer.errors import DataError, UsageError
from glassformer.tasks.chats import prompt_ids
from glassformer.tasks.reward_functions import RewardFunction, reward_function
from glassformer.tasks.rollouts import roll_out
from glassformer.training import Callback

POSITIVE = "positive"
OPENING_CHARACTERS = 400  # of a review, more than a prompt and its answer need
OPENINGS = 8_000
HELD_OUT = 64  # prompts and openings that validate
KNOWS = 0.6  # of held-out pairs, which a useful reward model gets right
GROUP = 8  # answers of which rejection sampling keeps one
_REVIEWS, _PROMPTS, _ANSWERS, _MEASURED, _BEST, _GROUPS = 80, 81, 82, 83, 84, 85  # streams of random numbers


def align_demo(
    out: str | os.PathLike[str] = "align-demo",
    *,
    seeds: int = 3,
    settings: Settings = FULL,
    examples: Examples | None = None,
    callbacks: Sequence[Callback] = (),
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Run the experiment, or what is missing of it, in the folder `out`.

    Args:
        seeds: how often everything after the fine-tuning is done; more of them may follow later in the same folder.
        examples: reviews with the labels positive and negative; None: the set `reviews`.

    Returns:
        what `results` gives.

    Raises:
        UsageError: `out` holds something else, or other settings; seeds is out of range.
        DataError: the reviews cannot be fetched. Interrupted: stopped; run it again to go on.
    """
    if not 1 <= seeds <= 20:
        raise UsageError(f"seeds={seeds} is out of range; use 1 to 20")
    chain = _Chain(Stages(Path(out), settings, log, callbacks), examples)
    for number in range(1, seeds + 1):
        chain.seed(number)
    return results(chain.stages, seeds, chain.gold.facts)


class _Chain:
    """What all seeds share: the classifier, the fine-tuned model, the prompts."""

    def __init__(self, stages: Stages, examples: Examples | None):
        self.stages, self.settings, self.out = stages, stages.settings, stages.out
        given = load_examples("reviews") if examples is None else examples
        orders = {split: philox(0, _REVIEWS, 0).permutation(len(rows)) for split, rows in given.items()}
        self.examples = {split: [given[split][i] for i in order] for split, order in orders.items()}
        self.train = self.examples["train"][: self.settings.reviews or None]
        self.gold = self._gold()
        reviews = self.out / "reviews.jsonl"
        if not reviews.is_file():
            write_rows(reviews, ({"text": example.source} for example in self.train))
        self.start = stages.stage(self.out / "start", reviews)
        _, self.tokenizer = model_of(self.start)
        openings = self.out / "openings.jsonl"
        if not openings.is_file():
            write_rows(openings, self._openings())
        length = f"training.sequence_length={self.settings.sequence_length}"
        self.sft = stages.stage(self.out / "sft", openings, [length], start_from=self.start)
        self.model, _ = model_of(self.sft)
        self.pool = self._prompts("train")
        self.measured = self._prompts("test")[: self.settings.measured]

    def _gold(self) -> Gold:
        file = self.out / "gold.json"
        if not file.is_file():
            with self.stages.timed("gold"):
                labelled = [
                    [(e.source, e.target == POSITIVE) for e in rows] for rows in (self.train, self.examples["test"])
                ]
                Gold.fit(*labelled).save(file)
        return Gold.load(file)

    def _openings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for text, prompt in islice(self._opened("train"), OPENINGS):
            split = "validation" if len(found) < HELD_OUT else "train"
            found.append({"prompt": prompt, "completion": text[len(prompt) :], "split": split})
        return found

    def _opened(self, split: str) -> Any:
        """(opening, prompt) of the reviews in which a prompt ends with a word and is encoded as in the review."""
        n = self.settings.prompt_tokens
        for example in self.train if split == "train" else self.examples[split]:
            text = example.source[:OPENING_CHARACTERS]
            ids = self.tokenizer.encode(text)
            prompt = self.tokenizer.decode(ids[:n])
            if text.startswith(f"{prompt} ") and self.tokenizer.encode(prompt) == ids[:n]:
                yield text, prompt

    def _prompts(self, split: str) -> list[ChatRow]:
        """Prompts, each once."""
        most = OPENINGS if split == "train" else self.settings.measured
        found = {prompt: None for _, prompt in islice(self._opened(split), most)}
        if not found:
            raise DataError(
                f"no review ({split}) is longer than {self.settings.prompt_tokens} tokens; give longer ones"
            )
        return [ChatRow(prompt, place=f"prompt {i}") for i, prompt in enumerate(found, 1)]

    def with_ids(self, rows: Sequence[ChatRow]) -> Prompts:
        return [(row, prompt_ids(self.tokenizer, row)) for row in rows]

    # ---- one seed ----

    def seed(self, number: int) -> None:
        """Everything after the fine-tuning."""
        s, stages, folder = self.settings, self.stages, self.out / f"seed-{number}"
        order = philox(number, _PROMPTS, 0).permutation(len(self.pool))
        prompts = [self.pool[i] for i in order]
        rankings = stages.made(folder / "rankings.json", lambda: self._ranked(prompts, number))
        pairs = write_pairs(folder / "pairs.jsonl", rankings, best_and_worst)
        rewards: dict[str, RewardFunction] = {"gold": self.gold}
        words, start = [f"training.seed={number}"], {"start_from": self.sft}
        if set(s.methods) - {"dpo"}:
            every = write_pairs(folder / "rankings-pairs.jsonl", rankings, all_pairs)
            reward = stages.stage(folder / "reward", every, words, **start)
            right = stages.read(reward / "summary.json")["val_accuracy"]
            stages.log(f"{stages.name(reward)}: right on {right:.1%} of held-out pairs")
            if right < KNOWS:
                stages.log("warning: the reward model hardly knows the judge, so what is trained on it may not gain")
            rewards["proxy"] = reward_function(str(reward))
        self._measure(folder, "sft", number, rewards, [(0, self.sft)])
        length = f"training.sequence_length={s.sequence_length}"
        for method in s.methods:
            if method == "best-of-n":
                self._best_of_n(folder, number, rewards)
                continue
            more, data = [*words, length], pairs
            if method in ("ppo", "grpo"):
                data = self._prompt_file(folder / "prompts.jsonl", prompts)
                more += [f"task.reward={folder / 'reward'}", f"task.max_new_tokens={s.answer_tokens}"]
            elif method == "rejection":
                data = folder / "kept.jsonl"
                if not data.is_file():
                    with stages.timed(f"{folder.name}/kept"):
                        write_rows(data, self._kept(prompts, number, rewards["proxy"]))
            run = stages.stage(folder / method, data, more, **start)
            self._measure(folder, method, number, rewards, checkpoints(run))

    def _prompt_file(self, path: Path, prompts: Sequence[ChatRow]) -> Path:
        splits = ["validation"] * HELD_OUT + ["train"] * len(prompts)
        rows = zip(prompts, splits, strict=False)
        return write_rows(path, ({"prompt": row.prompt, "split": split} for row, split in rows))

    def _answers(self, prompts: Sequence[ChatRow], samples: int, seed: int, stream: int) -> list[Any]:
        """`budget` answers of the fine-tuned model, some to each prompt."""
        chosen = [prompts[i % len(prompts)] for i in range(self.settings.budget // samples)]
        return roll_out(
            self.model,
            self.tokenizer,
            self.with_ids(chosen),
            samples=samples,
            max_new_tokens=self.settings.answer_tokens,
            seed=int(philox(seed, stream, 0).integers(2**40)),
        )

    def _ranked(self, prompts: Sequence[ChatRow], seed: int) -> list[dict[str, Any]]:
        """Answers to prompts, the best first, without empty ones."""
        rollouts = self._answers(prompts, self.settings.ranked, seed, _ANSWERS)
        golds = scores(self.gold, rollouts)
        found = []
        for start in range(0, len(rollouts), self.settings.ranked):
            written = [i for i in range(start, start + self.settings.ranked) if rollouts[i].text.strip()]
            ranked = sorted(written, key=lambda i: -golds[i])
            answers = [{"text": rollouts[i].text, "gold": float(golds[i])} for i in ranked]
            found.append({"prompt": rollouts[start].row.prompt, "answers": answers})
        return found

    def _kept(self, prompts: Sequence[ChatRow], seed: int, proxy: RewardFunction) -> list[dict[str, Any]]:
        """The answer to each prompt that the reward model likes best."""
        rollouts = self._answers(prompts[::-1], GROUP, seed, _GROUPS)
        best = scores(proxy, rollouts).reshape(-1, GROUP).argmax(axis=1)
        kept = [rollouts[i * GROUP + int(k)] for i, k in enumerate(best)]
        rows = [{"prompt": r.row.prompt, "completion": r.text} for r in kept if r.text.strip()]
        return [{**row, "split": "validation" if i < HELD_OUT // 2 else "train"} for i, row in enumerate(rows)]

    def _measure(
        self,
        folder: Path,
        method: str,
        seed: int,
        rewards: dict[str, RewardFunction],
        models: Sequence[tuple[int, Path]],
    ) -> None:
        """Measure models of a method, in order."""
        prompts = self.with_ids(self.measured)

        def points() -> list[dict[str, float]]:
            found = []
            for step, path in models:
                model, tokenizer = model_of(path)
                stream = int(philox(seed, _MEASURED, 0).integers(2**40))
                more = {"max_new_tokens": self.settings.answer_tokens, "seed": stream}
                found.append({"step": step, **measure(model, tokenizer, self.model, prompts, rewards, **more)})
            return found

        self.stages.made(folder / "measured" / f"{method}.json", points)

    def _best_of_n(self, folder: Path, seed: int, rewards: dict[str, RewardFunction]) -> None:
        def points() -> list[dict[str, float]]:
            more: dict[str, int] = {"samples": self.settings.best_of, "max_new_tokens": self.settings.answer_tokens}
            more["seed"] = int(philox(seed, _BEST, 0).integers(2**40))
            return best_of_n(self.model, self.tokenizer, self.with_ids(self.measured), rewards, **more)

        self.stages.made(folder / "measured" / "best-of-n.json", points)


def all_pairs(answers: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every answer with every one below it."""
    return list(combinations(answers, 2))


def best_and_worst(answers: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The first and the last answer."""
    return [(answers[0], answers[-1])] if len(answers) > 1 else []


def write_pairs(path: Path, rankings: Sequence[dict[str, Any]], pairs_of: Callable[..., Any]) -> Path:
    """Preference pairs of rankings, those of a twentieth of the prompts to validate on; equal answers make none."""
    rows = []
    for i, ranking in enumerate(rankings):
        for better, worse in pairs_of(ranking["answers"]):
            if better["gold"] > worse["gold"]:
                row = {"prompt": ranking["prompt"], "chosen": better["text"], "rejected": worse["text"]}
                rows.append({**row, "split": "validation" if i % 20 == 0 else "train"})
    if not path.is_file():
        write_rows(path, rows)
    return path
