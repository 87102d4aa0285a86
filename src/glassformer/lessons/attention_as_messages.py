"""Attention once more, as nodes of a graph that send each other messages: plain Python, one number at a time.

Every node holds a private vector. From it the node makes a query ("what am I looking for"), a key ("what do I hold")
and a value ("what will I tell"). An edge (i, j) means that i may listen to j. A node's turn: compare its query with the
key of everyone it listens to, make shares of the scores by softmax, take the sum of their values in these shares.
All read before anyone changes, so the order of the turns does not matter.

Attention is this and nothing else. It knows no text, no order and no space: a ring, a tree or a grid will do. A GPT is
the graph in which each token listens to itself and to all before it, an encoder the one in which everybody listens to
everybody; cross-attention has edges from one set of nodes to another. On the causal graph the numbers are those of
PyTorch's fused kernel; the tests hold this loop, the written-out matrices and the kernel equal.
"""

import math
import random

Vector = list[float]
Edge = tuple[int, int]  # (who listens, to whom)


def dot(a, b):
    """How well two vectors fit."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(scores):
    """Shares that sum to one. The largest score is subtracted first, so that no power overflows."""
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def listen(query, keys, values):
    """What one node hears: everybody's value, as loud as their key fits the query. D numbers, however many speak."""
    shares = softmax([dot(query, key) / math.sqrt(len(query)) for key in keys])
    return [dot(shares, numbers) for numbers in zip(*values, strict=True)]


def messages(queries, keys, values, sees, order=None):
    """What each node hears, where `sees(i, j)` tells whether i may listen to j. Who sees nobody hears zeros.

    Queries and keys are lists of vectors of one width, values of any width; there may be more keys than queries.
    """
    heard = [[0.0] * len(values[0]) for _ in queries]
    for i in order or range(len(queries)):
        friends = [j for j in range(len(keys)) if sees(i, j)]
        if friends:
            heard[i] = listen(queries[i], [keys[j] for j in friends], [values[j] for j in friends])
    return heard


class Graph:
    """Nodes with private vectors, edges, and the three matrices (lists of rows) that all nodes share."""

    def __init__(self, vectors: list[Vector], edges: set[Edge], query, key, value):
        self.vectors, self.edges = vectors, edges
        self.query, self.key, self.value = query, key, value

    def say(self, matrix) -> list[Vector]:
        """Each node's own vector through one of the matrices."""
        return [[dot(row, vector) for row in matrix] for vector in self.vectors]

    def round(self, chance: random.Random) -> list[Vector]:
        """One round: the nodes take their turns in random order, then each adds what it heard to what it holds."""
        order = chance.sample(range(len(self.vectors)), len(self.vectors))
        spoken = self.say(self.query), self.say(self.key), self.say(self.value)
        heard = messages(*spoken, lambda i, j: (i, j) in self.edges, order)
        self.vectors = [[x + h for x, h in zip(*pair, strict=True)] for pair in zip(self.vectors, heard, strict=True)]
        return heard


def causal(n: int) -> set[Edge]:
    """A text: each listens to itself and to all before it."""
    return {(i, j) for i in range(n) for j in range(i + 1)}


def full(n: int) -> set[Edge]:
    """An encoder: everybody listens to everybody."""
    return {(i, j) for i in range(n) for j in range(n)}


def ring(n: int) -> set[Edge]:
    """Each listens to itself and its two neighbours; the last is the first one's neighbour."""
    return {(i, (i + step) % n) for i in range(n) for step in (-1, 0, 1)}


def tree(n: int) -> set[Edge]:
    """A binary tree, node i above 2 i + 1 and 2 i + 2: each listens to itself, its parent and its children."""
    up = {(i, (i - 1) // 2) for i in range(1, n)}
    return up | {(parent, child) for child, parent in up} | {(i, i) for i in range(n)}


def grid(n: int) -> set[Edge]:
    """The fields of a board, row by row, the root of n wide: each listens to itself and its up to four neighbours."""
    width = math.isqrt(n)
    beside = {(i, i + 1) for i in range(n - 1) if (i + 1) % width} | {(i, i + width) for i in range(n - width)}
    return beside | {(j, i) for i, j in beside} | {(i, i) for i in range(n)}


GRAPHS = {"causal": causal, "full": full, "ring": ring, "tree": tree, "grid": grid}


def main(n: int = 16, seed: int = 1337) -> None:
    """How far does news travel? One node knows something; count who has heard of it after each round (each layer)."""
    chance = random.Random(seed)
    for name, edges in GRAPHS.items():
        vectors = [[float(i == 0), chance.gauss(0, 1), chance.gauss(0, 1)] for i in range(n)]
        query, key = ([[0.0, chance.gauss(0, 1), chance.gauss(0, 1)] for _ in range(2)] for _ in range(2))
        value = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # tell the news and nothing else
        graph, knowing = Graph(vectors, edges(n), query, key, value), [1]
        while knowing[-1] < n:
            graph.round(chance)
            knowing.append(sum(vector[0] > 0 for vector in graph.vectors))
        print(f"{name:<8}{len(graph.edges):>4} edges; who knows, round by round: {' '.join(map(str, knowing))}")


if __name__ == "__main__":
    main()
