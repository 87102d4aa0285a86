"""Neighbours, analogies, directions and components against what torch and numpy say of the same table, sizes prime."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.inspection import Note, Points, Table
from glassformer.inspection.geometry import analogy, direction, neighbours, pca
from glassformer.inspection.vectors import Vectors, embedding_of, vectors_of
from glassformer.models import EncoderConfig, EncoderDecoderConfig, build_model, make_config
from glassformer.processors.tokenizers import TOKENIZERS

N, C = 53, 7
WORDS = [f"word{i}" for i in range(N)]


def random_vectors(seed: int = 0) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    return Vectors(WORDS, torch.randn(N, C, generator=generator) * torch.rand(N, 1, generator=generator) * 3)


def cosines_to(vectors: Vectors, vector: torch.Tensor) -> torch.Tensor:
    """Another way to the same numbers, in double."""
    return torch.nn.functional.cosine_similarity(vectors.table.double(), vector.double()[None], dim=1)


# neighbours


def test_neighbours_are_the_largest_cosines():
    vectors = random_vectors()
    view = neighbours(vectors, "word11", top=5)
    expected = cosines_to(vectors, vectors.table[11])
    order = [i for i in expected.argsort(descending=True).tolist() if i != 11]
    assert view.words == [WORDS[i] for i in order[:5]] and view.word == "word11"
    np.testing.assert_allclose(view.cosines, expected[order[:5]], atol=1e-6)
    rest = expected[order].numpy()
    assert (view.mean, view.deviation) == (pytest.approx(rest.mean(), abs=1e-6), pytest.approx(rest.std(), abs=1e-6))
    assert view.length == pytest.approx(vectors.table[11].norm().item()) and view.n_words == N - 1


def test_more_neighbours_than_there_are_words():
    assert len(neighbours(random_vectors(), "word3", top=1000).words) == N - 1


# analogies


def test_an_analogy_is_what_is_nearest_to_a_minus_b_plus_c():
    vectors = random_vectors(1)
    view = analogy(vectors, "word5", "word7", "word2", expected="word31", top=4)
    a, b, c = (row / row.norm() for row in (vectors.table[i].double() for i in (5, 7, 2)))
    expected = cosines_to(vectors, a - b + c)
    everything = expected.argsort(descending=True).tolist()
    without = [i for i in everything if i not in (5, 7, 2)]
    assert view.words_among_all == [WORDS[i] for i in everything[:4]]
    assert view.words == [WORDS[i] for i in without[:4]]
    np.testing.assert_allclose(view.cosines, expected[without[:4]], atol=1e-6)
    assert view.rank_among_all == everything.index(31) + 1 and view.rank == without.index(31) + 1
    assert view.cosine == pytest.approx(expected[31].item(), abs=1e-6)
    assert view.rank < view.rank_among_all and view.flattering is False


@pytest.mark.parametrize(
    ("rows", "ranks"),
    [
        (
            [[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0], [0.1, 0.3, 0.9], [-1.0, 1.0, 0]],
            (1, 2, True),
        ),  # c is nearer
        ([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, -1.0, 1.0]], (1, 1, False)),  # d is a - b + c itself
    ],
)
def test_an_analogy_that_comes_first_only_without_its_words_is_marked(rows, ranks):
    view = analogy(Vectors(list("abcdx")[: len(rows)], torch.tensor(rows)), "a", "b", "c", expected="d")
    assert (view.rank, view.rank_among_all, view.flattering) == ranks
    assert ("only because they are left out" in " ".join(str(view).split())) == view.flattering


def test_a_word_given_twice_is_left_out_once():
    vectors = random_vectors(2)
    view = analogy(vectors, "word5", "word7", "word5", expected="word31", top=N)
    assert len(view.words) == N - 2 and sorted({*view.words, "word5", "word7"}) == sorted(WORDS)
    assert view.rank == view.words.index("word31") + 1


# directions


def test_a_direction_is_the_mean_difference_and_each_pair_is_scored_by_the_others():
    vectors = random_vectors(3)
    numbers = [(0, 1), (5, 2), (11, 13), (17, 3), (40, 41)]
    pairs = [(WORDS[a], WORDS[b]) for a, b in numbers]
    view = direction(vectors, pairs, along=["word50", "word9"])
    x = vectors.table.double()
    mean = sum(x[b] - x[a] for a, b in numbers) / 5
    torch.testing.assert_close(view.vector.double(), mean / mean.norm(), atol=1e-6, rtol=0)
    steps = []
    for left_out, (a, b) in enumerate(numbers):
        others = sum(x[d] - x[c] for i, (c, d) in enumerate(numbers) if i != left_out)
        steps.append(float((x[b] - x[a]) @ others / others.norm()))
    np.testing.assert_allclose(view.steps, steps, atol=1e-5)
    assert view.score == sum(step > 0 for step in steps) / 5
    np.testing.assert_allclose(view.along, [x[50] @ mean / mean.norm(), x[9] @ mean / mean.norm()], atol=1e-5)
    assert view.words == ["word50", "word9"] and view.pairs == pairs


def test_a_planted_direction_is_found_and_random_pairs_do_not_find_it():
    vectors = random_vectors(4)
    plural = torch.zeros(C)
    plural[3] = 9.0
    table = torch.cat([vectors.table[:20], vectors.table[:20] + plural])
    words = [*WORDS[:20], *(word + "s" for word in WORDS[:20])]
    view = direction(Vectors(words, table), [(w, w + "s") for w in WORDS[:7]], along=words[10:12] + words[30:32])
    assert view.score == 1.0 and 0.35 < view.random_score < 0.65 < view.random_best
    assert [b - a for a, b in zip(view.along[:2], view.along[2:], strict=True)] == pytest.approx([9, 9])
    again = direction(Vectors(words, table), [(w, w + "s") for w in WORDS[:7]])
    assert again.random_score == view.random_score  # the same draws


def test_a_single_pair_has_a_direction_and_no_score():
    vectors = random_vectors(5)
    view = direction(vectors, [("word1", "word2")], along=["word2", "word1"])
    assert view.score is view.random_score is None
    length = (vectors.table[2] - vectors.table[1]).norm().item()
    assert view.steps == [pytest.approx(length, rel=1e-5)]
    assert view.along[0] - view.along[1] == pytest.approx(length, rel=1e-5)


# components


def test_components_are_those_of_the_singular_values():
    vectors = random_vectors(6)
    chosen = WORDS[2:25]
    view = pca(vectors, chosen)
    x = vectors.table[2:25].double().numpy()
    x = x - x.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(view.shares, (s**2 / (s**2).sum())[:3], rtol=1e-6)
    np.testing.assert_allclose(np.abs(view.places), np.abs(u[:, :3] * s[:3]), atol=1e-5)
    np.testing.assert_allclose(view.places, x @ vt[:3].T * np.sign(np.diag(view.places.T @ (x @ vt[:3].T))), atol=1e-5)
    assert 0 < sum(view.shares) < 1 and view.places.shape == (23, 3)


def test_components_of_few_words():
    vectors = random_vectors(7)
    view = pca(vectors, ["word1", "word2", "word3", "word1"])
    assert view.words == ["word1", "word2", "word3"]
    assert sum(view.shares[:2]) == pytest.approx(1) and abs(view.shares[2]) < 1e-9  # three points lie in a plane


# as views


def test_every_view_has_figures_and_is_json():
    vectors = random_vectors(8)
    views = [
        (neighbours(vectors, "word1"), (Table, Note)),
        (analogy(vectors, "word1", "word2", "word3", expected="word4"), (Table, Note)),
        (analogy(vectors, "word1", "word2", "word3"), (Table,)),
        (direction(vectors, [("word1", "word2"), ("word3", "word4")], along=["word5"]), (Note, Table, Table)),
        (direction(vectors, [("word1", "word2")]), (Table,)),
        (pca(vectors, WORDS[:5]), (Points, Note)),
    ]
    for view, kinds in views:
        assert tuple(type(figure) for figure in view.figures()) == kinds
        assert json.loads(json.dumps(view.to_dict(), allow_nan=False)).keys() == view.to_dict().keys()
        assert "word1" in str(view)


# which words there are


def test_a_word_that_is_missing_is_refused_with_the_nearest():
    with pytest.raises(UsageError) as error:
        neighbours(random_vectors(), "wrd11")
    assert str(error.value).startswith("'wrd11' is not in this vocabulary of 53 words; near: word11")
    assert "word11" in random_vectors() and "wrd11" not in random_vectors()


def test_one_row_a_word():
    with pytest.raises(UsageError, match=r"2 words and a table \(3, 2\)"):
        Vectors(["a", "b"], torch.zeros(3, 2))


TEXT = "the king and the queen and the kingdom of the king " * 20


def test_of_a_models_tokens_the_one_with_a_space_comes_first():
    tokenizer = TOKENIZERS["bpe"]([TEXT + "king\n" * 30], vocab_size=300)
    model = toy_model(vocab_size=tokenizer.vocab_size + 3)  # rows that no token has
    vectors = vectors_of(model, tokenizer)
    assert len(vectors) == tokenizer.vocab_size - 1  # the end of text is no word
    both = [tokenizer.encode(text)[0] for text in (" king", "king")]
    assert both[0] != both[1] and len(tokenizer.encode("king")) == 1
    assert torch.equal(vectors["king"], embedding_of(model)[both[0]])
    assert torch.equal(vectors[" king"], vectors["king"]) and vectors.words[vectors.row("king")] == " king"
    with pytest.raises(UsageError) as error:
        vectors.row("kingly")
    assert "'kingly' is 2 tokens here (king | ly)" in str(error.value) or "tokens here (king | " in str(error.value)
    assert "near: king" in str(error.value)


def test_a_character_is_a_word_and_a_space_is_no_part_of_it():
    tokenizer = TOKENIZERS["characters"](["abc xyz"])
    model = toy_model(vocab_size=tokenizer.vocab_size)
    vectors = vectors_of(model, tokenizer)
    assert torch.equal(vectors["b"], embedding_of(model)[tokenizer.encode("b")[0]])
    assert torch.equal(vectors[" "], embedding_of(model)[tokenizer.encode(" ")[0]])
    with pytest.raises(UsageError, match=r"'abc' is 3 tokens here \(a \| b \| c\)"):
        vectors.row("abc")
    with pytest.raises(UsageError, match="'q' is not in this vocabulary of 7 words"):
        vectors.row("q")


SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 1, "n_head": 3, "n_embd": 18}
SIZES = {"vocab_size": 61, "block_size": 13, "n_embd": 7, "n_hidden": 11}
CONFIGS = {
    "encoder": (EncoderConfig.make(**SHAPE), (61, 18)),
    "encoder and decoder": (
        EncoderDecoderConfig.make(**SHAPE, start_token=1, end_token=2, source_vocab_size=37),
        (61, 18),
    ),
    "bigram": (make_config("bigram", vocab_size=61, block_size=13), (61, 61)),
    "lstm": (make_config("lstm", **SIZES), (61, 7)),
    "mlp": (make_config("mlp", **SIZES), (62, 7)),
    "seq2seq": (make_config("seq2seq", **SIZES, start_token=1, end_token=2, source_vocab_size=37), (61, 7)),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_model_that_reads_tokens_has_a_table(kind: str):
    config, shape = CONFIGS[kind]
    assert embedding_of(build_model(config)).shape == shape


def test_a_model_that_reads_images_has_none():
    shape = {**SHAPE, "vocab_size": 1, "block_size": 5}
    patches = EncoderConfig.make(**shape, stem="patches", image_size=8, patch_size=4, n_classes=7, pooling="mean")
    with pytest.raises(UsageError, match="this Encoder reads patches and has no table of token vectors"):
        embedding_of(build_model(patches))


def test_lengths_are_finite_where_a_vector_is_nothing():
    vectors = Vectors(["a", "b", "c"], torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    for word in "ab":
        assert all(math.isfinite(cosine) for cosine in neighbours(vectors, word).cosines)
    assert neighbours(vectors, "b").words == ["a", "c"] or neighbours(vectors, "b").cosines == [0.0, 0.0]
