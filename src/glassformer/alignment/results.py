"""What the stages measured, as means over seeds with 95 % intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from glassformer.alignment.figures import figures_of
from glassformer.alignment.stages import Stages
from glassformer.figures import Curves, save
from glassformer.files import write_json

TITLE = "Controlled sentiment"
WITHIN = 0.1  # of SFT's share of distinct tokens


def results(stages: Stages, seeds: int, gold: dict[str, Any]) -> dict[str, Any]:
    """Plain data, also as results.json; index.html and gold-by-kl.svg beside it.

    settings, gold (accuracy of the classifier), reward_accuracy (of each seed's reward model on held-out pairs),
    `sft` (a point), `methods` (points by name, in the order of training or of n), `summary` (by name), seconds.
    A point: means over seeds, NAME_interval half the width of the interval over seeds (of one seed: over prompts).
    """
    folders = [stages.out / f"seed-{number}" for number in range(1, seeds + 1)]
    measured = {
        method: [stages.read(folder / "measured" / f"{method}.json") for folder in folders]
        for method in ("sft", *stages.settings.methods)
    }
    methods = {method: [over_seeds(points) for points in zip(*runs, strict=True)] for method, runs in measured.items()}
    [sft] = methods.pop("sft")
    accuracies = []
    for folder in folders:
        if (file := folder / "reward" / "summary.json").is_file():
            accuracies.append(stages.read(file).get("val_accuracy"))
    result = {
        "settings": stages.settings.to_dict(),
        "seeds": seeds,
        "gold": gold,
        "reward_accuracy": accuracies,
        "sft": sft,
        "methods": methods,
        "summary": {name: summary(points, sft) for name, points in methods.items()},
        "seconds": stages.seconds,
    }
    write_json(stages.out / "results.json", result)
    figures = figures_of(result)
    save([f for f in figures if isinstance(f, Curves)][:1], stages.out / "gold-by-kl.svg")
    save(figures, stages.out / "index.html", TITLE)
    return result


def over_seeds(points: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One point of several seeds: means, and intervals by Student's t."""
    from scipy.special import stdtrit

    n, found = len(points), dict(points[0])
    if n == 1:
        return found
    for name in points[0]:
        if name.endswith("_interval") or name == "answers":  # those of the first seed stay
            continue
        values = np.array([point[name] for point in points])
        found[name] = float(values.mean())
        found[f"{name}_interval"] = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))
    return found


def summary(points: list[dict[str, Any]], sft: dict[str, Any]) -> dict[str, Any]:
    """Of a method, at its last point: whether gold rose above SFT with intervals apart, and what is left of SFT's
    distinct tokens; where gold was highest, with what gold lost and the proxy gained since (over-optimization, Gao et
    al. 2022, https://arxiv.org/abs/2210.10760); and `varied`, the point of the highest gold among those whose distinct
    tokens, of all answers and within one, stay within 10 % of SFT's (None: there is none)."""
    last, peak = points[-1], max(points, key=lambda point: point["gold"])

    def rose(point: dict[str, Any]) -> bool:
        return bool(point["gold"] - point["gold_interval"] > sft["gold"] + sft["gold_interval"])

    def kept(point: dict[str, Any]) -> dict[str, float]:
        names = [name for name in sft if name.startswith("distinct") and not name.endswith("interval")]
        return {name: point[name] / sft[name] for name in names}

    tokens = ("distinct_1", "distinct_1_within")
    varied = [point for point in points if min(kept(point)[name] for name in tokens) >= 1 - WITHIN]
    best = max(varied, key=lambda point: point["gold"], default=None)
    shown = ("gold", "gold_interval", "kl", *tokens)
    return {
        "gold_rose": rose(last),
        "distinct_kept": kept(last),
        "varied": None if best is None else {**{name: best[name] for name in shown}, "gold_rose": rose(best)},
        "peak_kl": peak["kl"],
        "gold_since_peak": last["gold"] - peak["gold"],
        "proxy_since_peak": last["proxy"] - peak["proxy"] if "proxy" in last else None,
    }
