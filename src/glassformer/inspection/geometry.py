"""What directions mean: neighbours, analogies, a direction from pairs, and a few words in three dimensions.

    neighbours   which words point the same way                    (cosine)
    analogy      king - man + woman, and where queen is            Mikolov et al. 2013, https://aclanthology.org/N13-1090
    direction    cats - cat, dogs - dog, ...: the mean difference, and how well it separates plurals from singulars
    pca          the three directions in which some words differ the most

N words, C channels, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Points, Table, number, percent, visible
from glassformer.inspection.options import view
from glassformer.inspection.vectors import Vectors
from glassformer.inspection.views import View
from glassformer.renamed import old_arguments
from glassformer.view_options import Option, Pair, Seed, Top

LINE_LETTERS = 80  # that fit on a number line
LANE = 0.05  # how high a lane of words is, as a share of the line
RANDOM_DRAWS = 200  # sets of random pairs that a direction is compared with


@dataclass
class Neighbours(View):
    """The words whose vectors point the same way as one word's, the nearest first."""

    word: str
    length: float  # of its vector
    words: list[str]
    cosines: list[float]
    mean: float  # of the cosines of all other words: in many models all vectors lie in one cone
    deviation: float  # of the same cosines
    n_words: int

    def figures(self) -> list[Figure]:
        others = f"All {self.n_words:,} others: {number(self.mean)} on average, ± {number(self.deviation)}."
        columns = [Column("word", "token"), Column("cosine", "signed")]
        return [
            Table(f"nearest to {visible(self.word)}", columns, list(zip(self.words, self.cosines, strict=True))),
            Note(others),
        ]


@old_arguments(n="top")
@view("glassformer look neighbours runs/word-vectors-1 tower")
def neighbours(vectors: Vectors, word: str, *, top: Top = 10) -> Neighbours:
    """The `top` words with the largest cosine to `word`, itself left out.

    Raises:
        UsageError: the vocabulary lacks the word.
    """
    row, n = vectors.row(word), min(top, len(vectors) - 1)
    cosines_N = vectors.cosines(vectors.table[row])
    others = torch.cat([cosines_N[:row], cosines_N[row + 1 :]])
    words, values = _nearest(vectors, cosines_N, n, without=(row,))
    return Neighbours(
        vectors.words[row],
        float(vectors.table[row].norm()),
        words,
        values,
        float(others.mean()),
        float(others.std(correction=0)),
        len(others),
    )


@dataclass
class Analogy(View):
    """a - b + c: the nearest words, with a, b, c among them and without."""

    a: str
    b: str
    c: str
    words: list[str]
    cosines: list[float]
    words_among_all: list[str]
    cosines_among_all: list[float]
    expected: str | None = None  # the word that should come out
    cosine: float | None = None
    rank: int | None = None  # its place without a, b and c; 1 is the nearest
    rank_among_all: int | None = None  # its place with them
    flattering: bool | None = None  # it comes first only because a, b and c are left out, as is usual

    def figures(self) -> list[Figure]:
        columns = [Column("all", "token"), Column("cosine", "signed"), Column("but a b c", "token")]
        columns.append(Column("cosine", "signed"))
        rows = list(zip(self.words_among_all, self.cosines_among_all, self.words, self.cosines, strict=True))
        marked = frozenset(i for i, row in enumerate(rows) if self.expected in (row[0], row[2]))
        found: list[Figure] = [
            Table(f"{visible(self.a)} - {visible(self.b)} + {visible(self.c)}", columns, rows, marked)
        ]
        if self.expected is not None:
            text = f"{self.expected!r} is number {self.rank_among_all:,} of all words, {self.rank:,} without the three."
            found.append(Note(text + " It comes first only because they are left out." * bool(self.flattering)))
        return found


@old_arguments(n="top")
@view("glassformer look analogy runs/word-vectors-1 king man woman queen")
def analogy(
    vectors: Vectors,
    a: str,
    b: str,
    c: str,
    expected: Annotated[str | None, Option("The word that should come out; its rank is shown.")] = None,
    *,
    top: Top = 10,
) -> Analogy:
    """What is nearest to a - b + c, all three at length 1, by the cosine (Mikolov et al. 2013).

    Raises:
        UsageError: the vocabulary lacks a word, or `expected` is one of the three.
    """
    rows = vectors.rows([a, b, c])
    n = min(top, len(vectors) - len(set(rows)))
    unit_a, unit_b, unit_c = vectors.unit_NC[rows]
    cosines_N = vectors.cosines(unit_a - unit_b + unit_c)
    named = [vectors.words[row] for row in rows]
    without, among_all = _nearest(vectors, cosines_N, n, without=rows), _nearest(vectors, cosines_N, n)
    made = Analogy(named[0], named[1], named[2], *without, *among_all)
    if expected is None:
        return made
    wanted = vectors.row(expected)
    if wanted in rows:
        raise UsageError(f"{expected!r} is one of the three words itself; give another one")
    nearer_N = cosines_N > cosines_N[wanted]
    made.expected, made.cosine = vectors.words[wanted], float(cosines_N[wanted])
    made.rank_among_all = 1 + int(nearer_N.sum())
    made.rank = made.rank_among_all - int(nearer_N[sorted(set(rows))].sum())
    made.flattering = made.rank == 1 < made.rank_among_all
    return made


@dataclass
class Direction(View):
    """The direction that leads from the first to the second of several pairs, and whether it does for others."""

    pairs: list[tuple[str, str]]
    vector: Tensor  # (C,) of length 1
    score: float | None  # share of pairs that point the way of all others (leave-one-out); None for one pair
    steps: list[float]  # how far each pair goes along it
    random_score: float | None  # of as many pairs of random words, on average
    random_best: float | None  # ... and the one of 40 that does best (97.5 %)
    words: list[str]  # further words, in the order given
    along: list[float]  # how far along the direction they lie

    def figures(self) -> list[Figure]:
        columns = [Column("from", "token"), Column("to", "token"), Column("step", "signed")]
        rows = [(*pair, step) for pair, step in zip(self.pairs, self.steps, strict=True)]
        right = [Column("word", "token"), Column("along", "signed")]
        placed = sorted(zip(self.words, self.along, strict=True), key=lambda pair: pair[1])
        found: list[Figure] = []
        if self.score is not None and self.random_score is not None and self.random_best is not None:
            text = f"{percent(self.score)} of the pairs point the way that the others do. Random pairs: "
            text += f"{percent(self.random_score)}; one set in 40 reaches {percent(self.random_best)}."
            found += [Note(text)]
        found.append(
            Table("pairs, each by the direction of the others" if self.score is not None else "pair", columns, rows)
        )
        if self.words:
            found.append(Table("along the direction", right, placed))
        if len(self.words) > 1:
            found.append(number_line(placed))
        return found


def number_line(placed: Sequence[tuple[str, float]]) -> Points:
    """Words on a line, from the lowest number to the highest; one that would cover another stands higher."""
    low, high = placed[0][1], placed[-1][1]
    letter = (high - low or 1.0) / LINE_LETTERS
    ends: list[float] = []  # of the last label of each lane
    places = []
    for word, along in placed:
        lane = next((i for i, end in enumerate(ends) if end <= along), len(ends))
        ends[lane:] = [along + letter * (len(word) + 3), *ends[lane + 1 :]]
        places.append((along, lane * LANE * (high - low or 1.0)))
    axes = ("along the direction", "only to keep the words apart")
    return Points("On a number line", [word for word, _ in placed], np.array(places), axes)


@old_arguments(words="along")
@view("glassformer look direction runs/word-vectors-1 cat:cats dog:dogs tree:trees --along one --along three")
def direction(
    vectors: Vectors,
    pairs: Annotated[Sequence[Pair], Option("Pairs of words, such as cat:cats.")],
    *,
    along: Annotated[Sequence[str], Option("Show this word's place on it; repeat for more than one.")] = (),
    seed: Seed = 0,
) -> Direction:
    """The mean of second - first over some pairs, scored on each pair by the direction of the others, beside as many
    pairs of random words; and where further words lie on it. A single pair makes a direction and no score.

    Raises:
        UsageError: there is no pair, the vocabulary lacks a word, or all pairs cancel out.
    """
    if not pairs:
        raise UsageError("a direction needs pairs, and there are none; give some such as cat cats")
    rows_P2 = torch.tensor([vectors.rows(_two_words(pair)) for pair in pairs])
    differences_PC = _differences(vectors.table, rows_P2)
    mean_C = differences_PC.mean(dim=0)
    if float(mean_C.norm()) < 1e-12:
        raise UsageError("these pairs cancel each other out and make no direction; give others")
    unit_C = mean_C / mean_C.norm()
    score = random_score = random_best = None
    steps_P = differences_PC @ unit_C  # of a single pair, its own length
    if len(pairs) > 1:
        steps_P = held_out_steps(differences_PC)
        score = float((steps_P > 0).double().mean())
        scores = _random_scores(vectors.table, len(pairs), seed)
        random_score, random_best = float(scores.mean()), float(np.quantile(scores, 0.975))
    rows = vectors.rows(along)
    return Direction(
        [(vectors.words[first], vectors.words[second]) for first, second in rows_P2.tolist()],
        unit_C,
        score,
        steps_P.tolist(),
        random_score,
        random_best,
        [vectors.words[row] for row in rows],
        (vectors.table[rows] @ unit_C).tolist() if rows else [],
    )


def _two_words(pair: Pair) -> Sequence[str]:
    words = pair.split(":") if isinstance(pair, str) else pair
    if len(words) != 2 or not all(words):
        raise UsageError(f"{pair!r} is not a pair; write two words with a colon between them, such as cat:cats")
    return words


def held_out_steps(differences_PC: Tensor) -> Tensor:
    """How far each pair goes along the direction, of length 1, that all the other pairs make: (P,)."""
    P, C = differences_PC.shape
    others_PC = (differences_PC.sum(dim=0) - differences_PC) / (P - 1)
    others_PC = others_PC / others_PC.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return (differences_PC * others_PC).sum(dim=1)  # (P, C) -> (P,)


def _random_scores(table_NC: Tensor, n_pairs: int, seed: int) -> np.ndarray:
    """The leave-one-out scores of sets of random pairs, (RANDOM_DRAWS,)."""
    random = np.random.default_rng(seed)
    drawn = torch.from_numpy(random.integers(0, len(table_NC), size=(RANDOM_DRAWS, n_pairs, 2)))
    scores = [(held_out_steps(_differences(table_NC, rows_P2)) > 0).double().mean() for rows_P2 in drawn]
    return torch.stack(scores).numpy()


def _differences(table_NC: Tensor, rows_P2: Tensor) -> Tensor:
    """Second minus first of each pair, (P, C)."""
    return table_NC[rows_P2[:, 1]] - table_NC[rows_P2[:, 0]]


@dataclass
class PCA(View):
    """Some words in the three directions in which they differ the most."""

    words: list[str]
    places: np.ndarray  # (n, 3)
    shares: list[float]  # of their variance, by direction

    def figures(self) -> list[Figure]:
        text = f"The three directions hold {percent(sum(self.shares))} of what these {len(self.words)} words vary."
        axes = [f"{i} ({percent(share)})" for i, share in enumerate(self.shares, 1)]
        return [Points("principal components", self.words, self.places, axes), Note(text)]


@view("glassformer look components runs/word-vectors-1 king queen man woman uncle aunt")
def pca(vectors: Vectors, words: Annotated[Sequence[str], Option("Three words or more.")]) -> PCA:
    """Principal components of some words (Pearson 1901): centred, then the three eigenvectors of their covariance with
    the largest eigenvalues. Which end of a direction is which is arbitrary; here its largest entry is positive.

    Raises:
        UsageError: fewer than three different words, or the vocabulary lacks one.
    """
    rows = list(dict.fromkeys(vectors.rows(words)))
    if len(rows) < 3:
        raise UsageError(f"{plural(len(rows), 'different word')} to spread in three dimensions; give 3 or more")
    return PCA([vectors.words[row] for row in rows], *principal_components(vectors.table[rows]))


def principal_components(x_nC: Tensor) -> tuple[np.ndarray, list[float]]:
    """The places (n, 3) of vectors along the three directions in which they differ the most, and the shares of these
    in their variance."""
    x_nC = x_nC.double()
    x_nC = x_nC - x_nC.mean(dim=0)
    n, C = x_nC.shape
    variances_C, axes_CC = torch.linalg.eigh(x_nC.t() @ x_nC)  # rising
    k = min(3, C)
    axes_Ck = axes_CC[:, -k:].flip(1)
    ends_k = axes_Ck[axes_Ck.abs().argmax(dim=0), torch.arange(k)]
    axes_Ck = axes_Ck * torch.where(ends_k < 0, -1.0, 1.0).double()
    places = np.zeros((n, 3))
    places[:, :k] = (x_nC @ axes_Ck).numpy()
    total = max(float(variances_C.clamp_min(0).sum()), 1e-300)
    return places, [float(v) / total for v in variances_C.clamp_min(0).flip(0)[:k]] + [0.0] * (3 - k)


def _nearest(vectors: Vectors, cosines_N: Tensor, n: int, without: Sequence[int] = ()) -> tuple[list[str], list[float]]:
    """The `n` words with the largest cosines, and these."""
    left = cosines_N.clone()
    left[list(without)] = -torch.inf
    best = left.topk(n)
    return [vectors.words[row] for row in best.indices.tolist()], best.values.tolist()
