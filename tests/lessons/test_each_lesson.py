"""What every lesson promises: it learns, never looks ahead, and is a small file that needs nothing else."""

from __future__ import annotations

import importlib.util
import runpy
import sys

import pytest
import torch
from play import PLAY
from small_lesson import PAIRS, SMALL

from glassformer.lessons.runner import LESSONS, words_of

MODELS = [n for n in LESSONS if n < 9]  # lesson 9 has lesson 8's model, and glassformer's
every_model = pytest.mark.parametrize("lesson", MODELS, indirect=True)


def test_ten_lessons_of_60_to_150_lines():
    assert list(LESSONS) == list(range(1, 11))
    for number, path in LESSONS.items():
        assert 60 <= len(path.read_text(encoding="utf-8").splitlines()) <= 150, path.name
        words = words_of(number)
        assert words.builds_on == {1: None, 10: 8}.get(number, number - 1)
        assert 6 <= len((words.title + "\n" + words.idea + "\n" + words.change).splitlines()) <= 20, path.name


@every_model
def test_it_learns_in_a_few_steps(lesson, play_ids):
    training, validation, vocab_size = play_ids
    torch.manual_seed(1)
    model = lesson.LanguageModel(vocab_size)
    before = lesson.evaluate(model, validation)
    seen = []
    lesson.train(model, training, steps=60, seed=1, report=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == list(range(1, 61))
    assert lesson.evaluate(model, validation) < before - 0.3
    assert sum(loss for _, loss in seen[-10:]) / 10 < seen[0][1] - 0.3


@every_model
def test_the_seed_decides_the_batches(lesson, play_ids):
    training, _, vocab_size = play_ids

    def losses(seed: int) -> list[float]:
        torch.manual_seed(1)
        seen: list[float] = []
        lesson.train(lesson.LanguageModel(vocab_size), training, 3, seed, lambda step, loss: seen.append(loss))
        return seen

    assert losses(1) == losses(1) != losses(2)


@every_model
def test_the_future_never_changes_the_past(lesson):
    torch.manual_seed(2)
    model = lesson.LanguageModel(7).eval()
    ids = torch.randint(7, (2, lesson.BLOCK_SIZE))
    other = ids.clone()
    other[:, 5] = (ids[:, 5] + 1) % 7
    a, b = model(ids)[0], model(other)[0]
    assert a.shape == (2, lesson.BLOCK_SIZE, 7)
    assert torch.equal(a[:, :5], b[:, :5])
    assert (a[:, 5] - b[:, 5]).abs().amax(dim=-1).min() > 1e-3


@every_model
def test_the_loss_is_the_mean_over_all_targets(lesson, play_ids):
    _, validation, vocab_size = play_ids
    model, T = lesson.LanguageModel(vocab_size), lesson.BLOCK_SIZE
    total, n = 0.0, (len(validation) - 1) // T
    for i in range(n):
        logits, none = model.eval()(validation[None, i * T : (i + 1) * T])
        assert none is None
        shares = logits[0].log_softmax(dim=-1)
        total -= sum(shares[t, validation[i * T + t + 1]].item() for t in range(T)) / T
    assert lesson.evaluate(model.train(), validation) == pytest.approx(total / n, abs=1e-5)
    assert model.training  # left as it was found


@every_model
def test_it_writes_beyond_its_window(lesson):
    torch.manual_seed(3)
    model = lesson.LanguageModel(7)
    start = torch.zeros((2, 1), dtype=torch.long)
    torch.manual_seed(4)
    ids = lesson.generate(model, start, max_new_tokens=lesson.BLOCK_SIZE + 6)
    assert ids.shape == (2, lesson.BLOCK_SIZE + 7) and ids[:, 0].tolist() == [0, 0]
    torch.manual_seed(4)
    assert torch.equal(ids, lesson.generate(model, start, max_new_tokens=lesson.BLOCK_SIZE + 6))
    assert len(ids.unique()) > 3


@pytest.mark.parametrize("number", [*MODELS, 10])
def test_a_file_runs_by_itself(number, monkeypatch, capsys):
    """Loaded from its path, under another name, where glassformer cannot be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "glassformer"]:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("alone", LESSONS[number])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if number == 8:
        vars(module).update(SMALL)
    if number != 10:
        whole_sample = module.generate
        monkeypatch.setattr(module, "generate", lambda model, ids, max_new_tokens: whole_sample(model, ids, 20))
    module.main(PAIRS if number == 10 else PLAY, steps=2)
    printed = capsys.readouterr().out
    assert printed.count("after 2 steps") == (2 if number == 6 else 1)
    sample = printed.split("after 2 steps")[-1].split("connections")[-1].strip("\n")
    assert len(sample) >= 15 and "<start>" not in sample and "<end>" not in sample
    assert number != 10 or ("81 pairs" in printed and sample.count("manual: the ") == 5)


def test_a_file_without_a_text_names_what_it_needs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(LESSONS[3]), run_name="__main__")
    assert stop.value.code == f"give a text file: python {LESSONS[3]} tinyshakespeare.txt"
