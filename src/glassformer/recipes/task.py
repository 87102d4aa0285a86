"""What a run learns from and what is asked of it: all that differs between a GPT, a translator and a classifier.

    TextTask       a token store, next token                            `text_task.py`
    WordTask       a token store of words, their neighbours              `word_task.py`
    ExampleTask    sentence pairs, labelled texts, texts with gaps       `example_task.py`

The rest of a run (loop, checkpoints, logs) knows this interface alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from glassformer.hub import model_folder_of
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.recipes.choices import Choice
from glassformer.recipes.schema import Recipe
from glassformer.recipes.text_task import TextTask, store_of, tokenizer_of
from glassformer.tasks import OBJECTIVES, Objective
from glassformer.training import World
from glassformer.training.loop import Batches, Evaluated


class Task(Protocol):
    """What a run learns from and what is asked.

    Attributes:
        r: the recipe; under torchrun the main process resolves it for all, and sets it here.
        tokenizer: of what the model says. source_tokenizer: of what it reads, where that is another one.
        labels: the names of classes, where there are some.
        key: changes when the data do.
        n_train: tokens of a text to learn from, or examples.
        n_answers: between how many the model chooses.
        longest: tokens of a text, which 19 of 20 do not exceed; of a task without examples 0.
        command: of `glassformer`, which asks a trained model ("": none does).
    """

    r: Recipe
    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None
    labels: tuple[str, ...]
    key: str
    n_train: int
    n_answers: int
    longest: int
    command: str

    def facts(self) -> dict[str, Any]:
        """What the data decide of configuration and objective: sizes of vocabularies, special tokens, classes."""

    def check(self, config: Any, length: int = 0) -> None:
        """Raise `DataError` unless there is something to learn from (in sequences of `length` tokens, with a model of
        this configuration; None: nothing is trained) and something to measure on."""

    def objective(self) -> Objective:
        """What is asked."""

    def batches(self, config: Any, world: World) -> Batches:
        """This process's part of every step."""

    def evaluate(self, model: Any, *, whole: bool, split: str = "validation") -> Evaluated:
        """The model as it is on a whole split, or on a part, the same at each call: of the validation split what
        `training.eval_batches` asks for, of others (`train`) as much, spread evenly (`held_out.training_rows` at most).

        Raises:
            UsageError: there is no such split.
        """

    def sample(self, model: Any, step: int) -> str:
        """What the model makes of something, as text to read."""

    def activations(self, model: Any, pattern: str) -> dict[str, dict[str, float]]:
        """Statistics of the taps that `pattern` names, on some held-out data."""

    def warnings(self, config: Any) -> list[str]:
        """What a person should know of the data before the first step."""

    def derived(self) -> dict[str, Any]:
        """What belongs into recipe.toml beside the configuration."""


def open_task(r: Recipe, folder: Path | None = None, labels: tuple[str, ...] = ()) -> tuple[Task, list[Choice]]:
    """The data of a recipe, ready to be read, and what was chosen for want of a word in the recipe.

    folder: a model folder whose tokenizers are taken, instead of those that the recipe asks for; left out, that of the
    model to start from, unless the recipe names another tokenizer.
    labels: of a model that is only measured, on whatever examples; left out, those of the training examples.

    Raises:
        UsageError, DataError, TokenizerError: the recipe or its data are wrong.
    """
    names_one = r.tokenizer.kind or r.tokenizer.path or r.tokenizer.source_kind
    if folder is None and r.training.start_from is not None and not names_one:
        folder = model_folder_of(r.training.start_from)
    data = OBJECTIVES[r.task.kind].data
    if data == "words":
        from glassformer.recipes.word_task import open_words

        return open_words(r, folder)
    if data != "text":
        from glassformer.recipes.example_task import open_examples

        return open_examples(r, folder, labels)
    tokenizer, choices = (load_tokenizer(folder), []) if folder is not None else tokenizer_of(r)
    inherited = r.training.start_from is not None and not names_one
    return TextTask(r, tokenizer, store_of(r, tokenizer), inherited=inherited), choices
