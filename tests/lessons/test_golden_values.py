"""Numbers of the lecture, to the last digit; and those that can be worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from glassformer.lessons import lesson_1_bigram as lesson_1
from glassformer.lessons import lesson_2_averaging as lesson_2
from glassformer.lessons import lesson_8_scaled as lesson_8
from glassformer.lessons.table import replayed


@pytest.fixture(scope="module")
def text(shakespeare) -> str:
    return shakespeare.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def encoded(text) -> tuple[torch.Tensor, list[str]]:
    return lesson_1.encode(text)


def test_the_text_and_its_vocabulary(encoded):
    ids, characters = encoded
    assert (len(ids), len(characters)) == (1_115_394, 65)
    assert characters[:2] == ["\n", " "]
    assert ids[:9].tolist() == [18, 47, 56, 57, 58, 1, 15, 47, 58]
    assert [characters.index(c) for c in "hii there"] == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert [len(part) for part in lesson_1.split(ids)] == [1_003_854, 111_540]


def test_the_batch_of_seed_1337(encoded):
    training, _ = lesson_1.split(encoded[0])
    inputs, targets = lesson_1.get_batch(training, 4, torch.Generator().manual_seed(1337))
    assert inputs.shape == targets.shape == (4, 8)
    assert inputs[0].tolist()[:4] == [24, 43, 58, 5]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_the_loss_of_the_first_random_table(text):
    assert replayed(text) == pytest.approx(4.8786, abs=5e-5)


def test_a_random_table_is_worse_than_a_uniform_guess():
    """4.66 = ln 65 + 0.5 - 0.013: the mean of e^z is e^0.5, and the log of a mean over 65 falls (e - 1) / 130 short."""
    shown = math.log(65) + 0.5 - 0.013
    assert math.log(65) == pytest.approx(4.174, abs=5e-4) and shown == pytest.approx(4.66, abs=5e-3)
    torch.manual_seed(1337)
    rows = torch.cat([lesson_1.LanguageModel(65).token_embedding.weight for _ in range(100)])  # (6500, 65)
    losses = -F.log_softmax(rows, dim=-1).mean(dim=-1)  # each character equally likely to follow
    assert losses.mean().item() == pytest.approx(shown, abs=4 * losses.std().item() / math.sqrt(len(losses)))
    assert losses.std() / math.sqrt(len(losses)) < 0.003  # so that 4.66 would not be taken for 4.65 - 0.013


def test_counting_gives_what_the_lecture_trains_for(encoded):
    training, validation = lesson_1.split(encoded[0])
    table = lesson_1.count_table(training, 65)
    assert torch.allclose(table.exp().sum(dim=1), torch.ones(65), atol=1e-5)
    assert F.nll_loss(table[validation[:-1]], validation[1:]).item() == pytest.approx(2.4819, abs=5e-5)


def test_toy_products_and_running_averages():
    torch.manual_seed(42)
    b = torch.randint(0, 10, (3, 2)).float()
    assert (torch.ones(3, 3) @ b)[0].tolist() == [14, 16]
    for average in (lesson_2.average_by_loop, lesson_2.average_by_matrix, lesson_2.average_by_softmax):
        assert torch.allclose(average(b[None])[0], torch.tensor([[2, 7], [4, 5.5], [14 / 3, 16 / 3]]))


def test_the_scaled_model_has_the_lectures_parameters():
    with torch.device("meta"):
        model = lesson_8.LanguageModel(65)
    assert sum(p.numel() for p in model.parameters()) == 10_788_929
