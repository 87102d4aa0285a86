"""Shares of right answers with their 95 % intervals, as charts: by number of examples, or by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Share
from glassformer.evaluation.suites import SuiteScores
from glassformer.figures.primitives import Curves, Figure, Line


def suite_figures(results: Sequence[SuiteScores]) -> list[Figure]:
    """Accuracy (of multiple choice `acc`): over the number of examples where there are several, else over the groups of
    the questions.

    Raises:
        UsageError: there is neither.
    """
    found: dict[str, dict[str, Share]] = {}
    if len({r.shots for r in results}) > 1:
        for r in results:
            name, share = next(iter(r.shares.items()))
            found.setdefault(f"{r.suite}, {name}", {})[str(r.shots)] = share
        return [share_curves("Accuracy by examples in the prompt", found, "examples")]
    for r in results:
        if groups := {group: next(iter(shares.values())) for group, shares in r.groups.items()}:
            found[f"{r.suite}, {r.shots} examples"] = groups
    if not found:
        raise UsageError("one accuracy makes no picture; give --shots several numbers, such as 0,1,2,4")
    return [share_curves("Accuracy by group of questions", found)]


def share_curves(title: str, lines: Mapping[str, Mapping[str, Share]], x_axis: str = "") -> Curves:
    """A line for each name, over places that have names, in the order in which they come."""
    places = list(dict.fromkeys(place for shares in lines.values() for place in shares))
    drawn = []
    for name, shares in lines.items():
        value, _, low, high = zip(*shares.values(), strict=True)
        drawn.append(Line(name, [places.index(place) for place in shares], value, low, high, dots=True))
    return Curves(title, drawn, x_axis, "share of right answers", x_labels=places, y_max=1.0)
