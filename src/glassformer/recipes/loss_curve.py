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
    loss = _value([curve["coefficients"][key] for key in KEYS], at)
    others = np.array([_value(each, at) for each in curve["jackknife"]])
    # jackknife: how the curve moves when each run is left out, and how runs scatter about it
    moved = (len(others) - 1) / len(others) * float(((others - others.mean()) ** 2).sum())
    half = 2.1 * math.sqrt(moved + curve["scatter"] ** 2)
    n, largest, longest = (curve[key] for key in ("n", "largest", "longest"))
    most = f"{largest / 1e6:.1f} M parameters and {longest / 1e6:.1f} M tokens"
    basis = f"a curve through {n} of our own runs of up to {most}"
    if (beyond := max(parameters / largest, worth / longest, 1.0)) > 1:
        half *= 1 + math.log(beyond)  # the jackknife knows nothing of what no run has seen
        basis += "; this run lies beyond them"
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


def fit(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Coefficients through all runs, and through all but each one (the jackknife), by least squares on the logarithms
    of the losses."""
    runs = [{**run, "tokens": effective_tokens(run["tokens"], 1_003_854)} for run in runs]
    best = _least_squares(runs, [1.0, 20.0, 0.35, 0.4, 2.0, 100.0, 200.0])
    each = [_least_squares([r for r in runs if r is not run], best) for run in runs]
    off = [math.log(_value(theta, run) / run["loss"]) * run["loss"] for theta, run in zip(each, runs, strict=True)]
    return {
        "coefficients": dict(zip(KEYS, (round(x, 6) for x in best), strict=True)),
        "scatter": round(math.sqrt(sum(x * x for x in off) / len(off)), 4),
        "n": len(runs),
        "largest": max(run["parameters"] for run in runs),
        "longest": max(run["tokens"] for run in runs),
        "jackknife": [[round(x, 6) for x in theta] for theta in each],
    }


def leave_one_out(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each run, and what the curve through the others says of it."""
    told = fit(runs)["jackknife"]
    flat = [{**run, "tokens": effective_tokens(run["tokens"], 1_003_854)} for run in runs]
    return [{**run, "predicted": round(_value(t, f), 4)} for run, f, t in zip(runs, flat, told, strict=True)]


def _value(theta: Any, run: dict[str, Any]) -> float:
    E, A, a, b, G, *B = theta
    data = B[0 if run["optimizer"] == "muon" else 1] / run["tokens"] ** b
    return E + A / run["parameters"] ** a + data + G / run["block_size"]


def _least_squares(runs: list[dict[str, Any]], start: Any, rounds: int = 400) -> list[float]:
    """Levenberg-Marquardt in the logarithms of the coefficients, all of which are positive; the exponents are held near
    those of the literature (0.35, a fifth either way), which so few runs could not tell from one another."""
    x = np.log(np.array(start, dtype=float))
    pull = np.array([0, 0, 1, 1, 0, 0, 0]) / 0.2
    centre = np.log(np.array([1, 1, 0.35, 0.37, 1, 1, 1]))

    def off(x: np.ndarray) -> np.ndarray:
        theta = np.exp(x)
        miss = [math.log(_value(theta, run) / run["loss"]) / 0.01 for run in runs]
        return np.array([*miss, *((x - centre) * pull)])

    damping, now = 1.0, off(x)
    for _ in range(rounds):
        slope = np.stack([(off(x + step) - now) / 1e-5 for step in 1e-5 * np.eye(len(x))], axis=1)
        square = slope.T @ slope
        step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-9), -slope.T @ now)
        then = off(x + np.clip(step, -1, 1))
        if damping > 1e8 or 0 <= now @ now - then @ then < 1e-9 * (now @ now):
            break
        if then @ then < now @ now:
            x, now, damping = x + np.clip(step, -1, 1), then, damping / 3
        else:
            damping *= 4
    return [float(value) for value in np.exp(x)]
