"""Reading a model that may be in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Eval mode and no gradients; the model's own mode is put back. A training loop samples between its steps, and
    dropout has no place in a sample."""
    was_training = model.training
    if was_training:  # setting all modules takes as long as a token of a small model
        model.train(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train(True)
