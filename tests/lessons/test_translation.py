"""Lesson 10: a translator that learns, hears its source and not its future, and ends by itself."""

from __future__ import annotations

import pytest
import torch
from small_lesson import PAIRS

from glassformer.lessons import lesson_10_translation as lesson


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    training, validation, words = lesson.encode(PAIRS)
    model = lesson.LanguageModel(len(words)).to(lesson.DEVICE)
    before = lesson.evaluate(model, validation)
    lesson.train(model, training, steps=60, seed=1)
    return model.eval(), before, training, validation, words


def test_pairs_become_ids():
    training, validation, words = lesson.encode(PAIRS + "\nun mot inconnu\tan unknown word\nno tab here")
    assert words[:3] == ["", "<start>", "<end>"] and "inconnu" not in words and "rouge" in words
    assert training.shape == (81, 2, lesson.BLOCK_SIZE + 2) and len(validation) == 9
    source, target = training[0]
    assert lesson.START not in source and lesson.END not in source
    n = (target != lesson.PADDING).sum()
    assert target[0] == lesson.START and target[n - 1] == lesson.END and (target[n:] == lesson.PADDING).all()


def test_it_learns_to_turn_words_round(trained):
    model, before, _, validation, words = trained
    assert lesson.evaluate(model, validation) < 0.2 * before
    written = lesson.translate(model, validation[:, 0].to(lesson.DEVICE))
    wanted = [target[target != lesson.PADDING].tolist() for target in validation[:, 1]]
    right = [w[: len(t)].tolist() == t for w, t in zip(written, wanted, strict=True)]
    assert sum(right) >= 7  # of 9 sentences that it never saw


def test_the_target_hears_all_of_the_source_and_nothing_of_its_future(trained):
    model, _, training, _, _ = trained
    source, target = (part.to(lesson.DEVICE) for part in training[:4].unbind(dim=1))
    logits = model(source, target)
    other = target.clone()
    other[:, 3] = 5
    assert torch.equal(model(source, other)[:, :3], logits[:, :3])
    for place in (0, 2):  # the first word and the last: the encoder has no mask
        changed = source.clone()
        changed[:, place] = (source[:, place] + 1).clamp_max(len(model.token_embedding.weight) - 1)
        assert not torch.allclose(model(changed, target)[:, 0], logits[:, 0], atol=1e-3)


def test_padding_changes_nothing(trained):
    model, _, training, _, _ = trained
    source, target = (part.to(lesson.DEVICE) for part in training[:1].unbind(dim=1))
    n = int((source != lesson.PADDING).sum())
    torch.testing.assert_close(model(source[:, :n], target), model(source, target), rtol=1e-4, atol=1e-5)
