"""What a run will come to: a curve through losses of runs that were made, ours or published ones.

    L(N, D, T) = E + A / N^a + B / D^b + G / T      Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556, eq. 2,
                                                    with a term of our own for the context T

N parameters, D tokens read, with those read again worth less (Muennighoff et al. 2023,
https://arxiv.org/abs/2305.16264, eq. 5): a text of U tokens read R + 1 times is as good as U + U R* (1 - exp(-R/R*)),
R* = 15.4. Overfitting is not in the form: it holds for the best weights on the way, with dropout where it is needed.

Tiny Shakespeare's characters: coefficients fitted to our own runs (`loss_curve.json` keeps both; refitted by
`benchmarks/fit_loss_curve.py`), B apart for each optimizer. Web text in GPT-2's tokens: those of Besiroglu et al. 2024,
https://arxiv.org/abs/2404.10102, who refitted Hoffmann's runs; other text and another tokenizer, so only near.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_name("loss_curve.json")
REPEATED = 15.39  # R*: passes until more of the same text is worth nothing (Muennighoff et al. 2023, sect. 3.1)
CHINCHILLA = {"E": 1.8172, "A": 482.01, "a": 0.3478, "B": 2085.43, "b": 0.3658}  # Besiroglu et al. 2024, table 1
KEYS = ("E", "A", "a", "b", "G", "B_muon", "B_adamw")
WEB_TEXT = ("openwebtext", "fineweb-edu")


class Prediction(NamedTuple):
    """Validation loss in nats a token, the 95 % interval, and where it comes from."""

    loss: float
    interval: tuple[float, float]
    basis: str


def predict_loss(
    *, source: str, tokenizer: str, optimizer: str, parameters: int, tokens: int, train_tokens: int, block_size: int
) -> Prediction | None:
    """The loss that a run will end at, or None where there is no curve for its text, tokenizer and optimizer.

    Args:
        parameters: of the model. tokens: read in the whole run. train_tokens: different ones in the text.
    """
    worth = effective_tokens(tokens, train_tokens)
    if source in WEB_TEXT and tokenizer == "gpt2":
        c = CHINCHILLA
        loss = c["E"] + c["A"] / parameters ** c["a"] + c["B"] / worth ** c["b"]
        basis = "Chinchilla's curve (Hoffmann et al. 2022, refitted by Besiroglu et al. 2024): other text, other tokens"
        return Prediction(loss, (loss - 0.2, loss + 0.2), f"{basis}; 0.2 either way is our guess")
    if source != "tinyshakespeare" or tokenizer != "characters" or optimizer not in ("adamw", "muon"):
        return None
    curve = json.loads(FILE.read_text(encoding="utf-8"))
    at = {"optimizer": optimizer, "parameters": parameters, "tokens": worth, "block_size": block_size}
    loss = loss_at([curve["coefficients"][key] for key in KEYS], at)
    others = np.array([loss_at(each, at) for each in curve["jackknife"]])
    # jackknife: how the curve moves when each run is left out, and how runs scatter about it
    moved = (len(others) - 1) / len(others) * float(((others - others.mean()) ** 2).sum())
    half = 2.1 * math.sqrt(moved + curve["scatter"] ** 2)
    n, largest, longest = (curve[key] for key in ("n", "largest", "longest"))
    most = f"{largest / 1e6:.1f} M parameters and {longest / 1e6:.1f} M tokens"
    basis = f"a curve through {n} of our own runs of up to {most}"
    if (beyond := max(parameters / largest, worth / longest, 1.0)) > 1:
        half *= 1 + math.log(beyond)  # the jackknife knows nothing of what no run has seen
        basis += "; this run is outside their range"
    return Prediction(loss, (loss - half, loss + half), basis)


def effective_tokens(tokens: float, train_tokens: int) -> float:
    """What tokens are worth, those of a text that is read again counted less and less.

    >>> effective_tokens(500, 1000), round(effective_tokens(1_000_000, 1000))
    (500, 16390)
    """
    if tokens <= train_tokens:
        return tokens
    repeats = tokens / train_tokens - 1
    return train_tokens * (1 + REPEATED * (1 - math.exp(-repeats / REPEATED)))


def loss_at(theta: Any, run: dict[str, Any]) -> float:
    """L of a run (`optimizer`, `parameters`, effective `tokens`, `block_size`) by coefficients as in `KEYS`."""
    E, A, a, b, G, *B = theta
    data = B[0 if run["optimizer"] == "muon" else 1] / run["tokens"] ** b
    return E + A / run["parameters"] ** a + data + G / run["block_size"]
