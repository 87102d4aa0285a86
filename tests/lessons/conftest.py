"""What the lessons' tests share: the command line, a small play as ids, and lesson 8 at a size for tests."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from command_line import glassformer
from play import PLAY
from small_lesson import SMALL

from glassformer.lessons import lesson_8_scaled
from glassformer.lessons.runner import load
from glassformer.lessons.table import split_ids

__all__ = ["glassformer"]


@pytest.fixture
def small_lesson_8(monkeypatch) -> ModuleType:
    """Lesson 8 with two narrow blocks in place of six wide ones, on the CPU."""
    for name, value in SMALL.items():
        monkeypatch.setattr(lesson_8_scaled, name, value)
    return lesson_8_scaled


@pytest.fixture
def lesson(request, small_lesson_8) -> ModuleType:
    """The lesson whose number the test is parametrised with."""
    return load(request.param)


@pytest.fixture(scope="session")
def play_ids() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Training and validation ids of the play, and the size of its vocabulary."""
    return split_ids(PLAY)
