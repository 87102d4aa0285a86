"""The whole vocabulary in three dimensions: every token's embedding along its first three principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from glassformer.figures import Column, Figure, Note, Points, Table, percent, visible
from glassformer.inspection.geometry import principal_components
from glassformer.inspection.options import view
from glassformer.inspection.vectors import Vectors
from glassformer.inspection.views import View
from glassformer.view_options import Option


@dataclass
class VocabularyView(View):
    """All words and their places."""

    words: list[str]
    places: np.ndarray  # (N, 3)
    shares: list[float]  # of the variance of all embeddings, by component
    n_channels: int
    ends: int  # how many words are shown at each end of a component

    def figures(self) -> list[Figure]:
        axes = [f"component {i} ({percent(share)})" for i, share in enumerate(self.shares, 1)]
        columns = [Column("component"), Column("variance", "share"), Column("from"), Column("to")]
        rows = []
        for i, share in enumerate(self.shares):
            order = np.argsort(self.places[:, i], kind="stable")
            low, high = order[: self.ends], order[::-1][: self.ends]
            words = (" ".join(visible(self.words[row], 10) for row in some) for some in (low, high))
            rows.append([str(i + 1), share, *words])
        text = (
            f"{len(self.words):,} embeddings of {self.n_channels:,} numbers. The three components hold "
            f"{percent(sum(self.shares))} of their variance: what is near here can be far apart in the other "
            f"{self.n_channels - 3:,} directions."
        )
        return [Note(text), Points("The vocabulary", self.words, self.places, axes), Table("Its ends", columns, rows)]


@view("glassformer look vocabulary smollm2-135m-instruct")
def vocabulary(
    vectors: Vectors,
    *,
    ends: Annotated[int, Option("Words to show at each end of a component.", ge=1, le=50)] = 5,
) -> VocabularyView:
    """Principal components of all token embeddings (Pearson 1901), in which the page turns the whole vocabulary.

    Raises:
        UsageError: the model reads no tokens.
    """
    places, shares = principal_components(vectors.table)
    return VocabularyView(vectors.words, places, shares, vectors.table.shape[1], ends)
