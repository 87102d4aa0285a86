"""Shares of right answers with their 95 % intervals, as charts: by number of examples, or by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Share
from glassformer.evaluation.suites import SuiteScores
from glassformer.figures.primitives import Curves, Figure, Line


def suite_figures(results: Sequence[SuiteScores]) -> list[Figure]:
    """Accuracy (of multiple choice `acc`): over the number of examples where there are several, and chrF where it was
    asked for; else over the groups of the questions.

    Raises:
        UsageError: there is neither.
    """
    found: dict[str, dict[str, Share]] = {}
    if len({r.shots for r in results}) > 1:
        for r in results:
            name, share = next(iter(r.shares.items()))
            found.setdefault(f"{r.suite}, {name}", {})[str(r.shots)] = share
        return [share_curves("Accuracy by examples in the prompt", found, "examples"), *_chrf_curves(results)]
    for r in results:
        if groups := {group: next(iter(shares.values())) for group, shares in r.groups.items()}:
            found[f"{r.suite}, {r.shots} examples"] = groups
    if not found:
        raise UsageError("one accuracy makes no picture; give --shots several numbers, such as 0,1,2,4")
    return [share_curves("Accuracy by group of questions", found)]


def _chrf_curves(results: Sequence[SuiteScores]) -> list[Figure]:
    scored = [(r.suite, r.shots, r.chrf) for r in results if r.chrf is not None]
    places, lines = list(dict.fromkeys(shots for _, shots, _ in scored)), []
    for name in dict.fromkeys(suite for suite, _, _ in scored):
        of_suite = [(places.index(shots), s.score, s.interval) for suite, shots, s in scored if suite == name]
        x, y, half = (np.array(part, dtype=float) for part in zip(*of_suite, strict=True))
        lines.append(Line(name, x, y, y - half, y + half, dots=True))
    title = "chrF by examples in the prompt"
    return [Curves(title, lines, "examples", "chrF", x_labels=[str(n) for n in places])] if lines else []


def share_curves(title: str, lines: Mapping[str, Mapping[str, Share]], x_axis: str = "") -> Curves:
    """A line for each name, over places that have names, in the order in which they come."""
    places = list(dict.fromkeys(place for shares in lines.values() for place in shares))
    drawn = []
    for name, shares in lines.items():
        value, _, low, high = zip(*shares.values(), strict=True)
        drawn.append(Line(name, [places.index(place) for place in shares], value, low, high, dots=True))
    return Curves(title, drawn, x_axis, "share of right answers", x_labels=places, y_max=1.0)
