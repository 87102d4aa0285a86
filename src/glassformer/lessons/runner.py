"""Run the lessons: one with its loss in view, or all of them as a table beside the lecture's figures.

The lessons know nothing of this. What they share is a form: `main(text, steps, seed, report)` runs the whole lesson;
`LanguageModel(vocab_size)`, `train` and `evaluate` are its parts, `STEPS` and `BLOCK_SIZE` its sizes. Their texts are
read from the source, so that listing them needs no torch.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from glassformer.errors import DataError, UsageError
from glassformer.text_files import decode

HERE = Path(__file__).resolve().parent
LESSONS = dict(sorted((int(path.stem.split("_")[1]), path) for path in HERE.glob("lesson_*.py")))
CORPUS, PAIRS = "tinyshakespeare", "en-fr"
TRANSLATION = 10  # this lesson reads pairs of sentences, the others a text


@dataclass(frozen=True)
class Words:
    """A lesson's docstring in its parts: the first line, the idea, and what changed since the lesson before."""

    title: str
    idea: str
    change: str

    @property
    def builds_on(self) -> int | None:
        """The lesson that `change` compares with; None for the first."""
        found = re.match(r"Since lesson (\d+): ", self.change)
        return int(found[1]) if found else None


def words_of(number: int) -> Words:
    """The parts of a lesson's docstring."""
    docstring = ast.get_docstring(ast.parse(LESSONS[number].read_text(encoding="utf-8")))
    assert docstring is not None
    title, idea, change = docstring.split("\n\n", 1)[0], *docstring.split("\n\n", 1)[1].rsplit("\n\n", 1)
    return Words(title.removeprefix(f"Lesson {number}: ").rstrip("."), idea, change)


def changed_lines(number: int) -> str:
    """The code by which a lesson differs from the one it builds on, as a unified diff; empty for the first lesson.

    Raises:
        UsageError: there is no such lesson.
    """
    check_number(number)
    if (base := words_of(number).builds_on) is None:
        return ""
    before, after = (code_of(LESSONS[n]).splitlines() for n in (base, number))
    names = LESSONS[base].name, LESSONS[number].name
    return "\n".join(difflib.unified_diff(before, after, *names, n=1, lineterm=""))


def code_of(path: Path) -> str:
    """A file without the docstring that it opens with."""
    return path.read_text(encoding="utf-8").split('"""', 2)[2].lstrip("\n")


def check_number(number: int) -> None:
    """Refuse the number of a lesson that is not there."""
    if number not in LESSONS:
        raise UsageError(f"there is no lesson {number}; choose one of 1 to {max(LESSONS)}")


def load(number: int) -> ModuleType:
    """A lesson as a module."""
    return importlib.import_module(f"glassformer.lessons.{LESSONS[number].stem}")


def read_text(path: str | None) -> str:
    """The text to learn from: a UTF-8 file, or Tiny Shakespeare, which comes with the package.

    Raises:
        DataError: it cannot be had or read.
    """
    if path is None:
        from glassformer.data import CORPORA

        return "".join(CORPORA[CORPUS].texts())
    try:
        return decode(Path(path).expanduser().read_bytes()).replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise DataError(f"{path}: it is not UTF-8 text; the lessons read one plain text file") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: it cannot be read ({reason}); the lessons read one plain text file") from None


def read_pairs(path: str | None) -> str:
    """What the translation lesson learns from, lines of `French<TAB>English`: a UTF-8 file, or the sentences of
    software manuals that `glassformer train --data en-fr` learns from.

    Raises:
        DataError: they cannot be had or read.
    """
    if path is not None:
        return read_text(path)
    from glassformer.data import EXAMPLE_SETS

    return "\n".join(f"{pair.target}\t{pair.source}" for pair in EXAMPLE_SETS[PAIRS].load()["train"])


def check_pairs(text: str, lesson: ModuleType) -> None:
    """Refuse pairs that the translation lesson cannot learn from.

    Raises:
        DataError: too few are usable.
    """
    lines = [line for line in text.splitlines() if line.count("\t") == 1]
    usable = sum(map(len, lesson.encode("\n".join(lines))[:2])) if lines else 0
    if usable < 20:
        raise DataError(
            f"{usable} usable pairs are too few: each line is French, a tab and English, at most {lesson.BLOCK_SIZE} "
            "words each, and all words occur three times or more; give 20 such lines or more"
        )


def check_text(text: str, lesson: ModuleType) -> None:
    """Refuse a text that a lesson cannot learn from.

    Raises:
        DataError: the last tenth of it, which validates, holds no whole window; or lesson 9 cannot carry it over.
    """
    sizes = lesson if hasattr(lesson, "BLOCK_SIZE") else lesson.lesson_8  # the last lesson has lesson 8's
    need = 10 * (sizes.BLOCK_SIZE + 1)
    if len(text) < need:
        raise DataError(
            f"a text of {len(text):,} characters is too short: windows are {sizes.BLOCK_SIZE} long and a tenth of the "
            f"text validates; give {need:,} characters or more"
        )
    if sizes is not lesson and (kinds := len(set(text))) > sizes.N_EMBD:
        raise DataError(
            f"the text has {kinds:,} different characters; this lesson carries over at most {sizes.N_EMBD}, one for "
            "each number of a token's vector: give a text with fewer"
        )


class LiveLoss:
    """The loss while a lesson trains: a bar on a terminal, about ten lines elsewhere. What is shown is smoothed."""

    def __init__(self, steps: int, label: str = ""):
        self.steps, self.label = steps, label
        self.smooth = 0.0
        self.bar: Any = None  # rich's, once there is something to show
        self.task: Any = None
        self.live = sys.stdout.isatty()

    def __call__(self, step: int, loss: float) -> None:
        rate = max(0.05, 1 / step)  # a plain mean for twenty steps, then about the last twenty
        self.smooth += rate * (loss - self.smooth)
        if self.live:
            if step == 1:
                self._open()
            self.bar.update(self.task, completed=step, loss=self.smooth)
        elif step % max(1, self.steps // 10) == 0:
            print(f"{self.label}step {step:,} of {self.steps:,}: training loss {self.smooth:.3f}", flush=True)
        if step == self.steps:
            self.close()

    def _open(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("training loss {task.fields[loss]:.3f}"))
        self.bar = Progress(TextColumn(self.label or "step"), *columns, TimeRemainingColumn())
        self.bar.start()
        self.task = self.bar.add_task("", total=self.steps, loss=0.0)

    def close(self) -> None:
        """Leave the last state on the screen, and the cursor below it."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def run_lesson(number: int, *, data: str | None = None, steps: int | None = None, seed: int = 1337) -> None:
    """One lesson from its first line to its sample.

    Raises:
        UsageError: there is no such lesson. DataError: the text cannot be had, or is too short.
    """
    check_number(number)
    words = words_of(number)
    print(f"Lesson {number}: {words.title}\n\n{words.idea}\n\n{words.change}\n", flush=True)
    translates = number == TRANSLATION
    text, lesson = read_pairs(data) if translates else read_text(data), load(number)
    (check_pairs if translates else check_text)(text, lesson)
    live = LiveLoss(lesson.STEPS if steps is None else steps)
    with contextlib.closing(live):
        lesson.main(text, steps=live.steps, seed=seed, report=live)
    print(f"\nthe code: {inspect.getfile(lesson)}")
