"""Linear functions in context: what is drawn, what is best, and a run from the recipe to the model folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import shaken

import glassformer as gf
from glassformer import recipes
from glassformer.errors import ModelFolderError, UsageError
from glassformer.models import build_model, make_config
from glassformer.models.parts import letters, pieces
from glassformer.processors.vectors import VectorProcessor, load_vector_processor
from glassformer.tasks import LinearFunctions
from glassformer.tasks.linear_functions import errors_in_context, ridge_predictions
from glassformer.tasks.settings import RunSettings

D, N = 3, 7


@pytest.fixture
def task():
    return LinearFunctions(inputs=D, examples=N, noise=0.5, held_out=50).with_run(RunSettings(seed=5, batch_size=6))


@pytest.fixture
def model(task):
    return shaken(build_model(make_config("vector_decoder", n_layer=2, n_head=3, n_embd=15, **task.model_fields())))


def test_a_prompt_holds_pairs_and_y_is_linear_in_x_up_to_the_noise(task):
    vectors_BTD, y_BN = task.draw("train", 0, 4000)
    assert vectors_BTD.shape == (4000, 2 * N - 1, D) and y_BN.shape == (4000, N)
    assert torch.equal(vectors_BTD[:, 1::2, 0], y_BN[:, :-1])
    assert not vectors_BTD[:, 1::2, 1:].any()
    assert float(y_BN.var()) == pytest.approx(D + 0.25, rel=0.05)
    x_BND = vectors_BTD[:, ::2].double().numpy()
    w_BD = np.linalg.lstsq(x_BND[0], y_BN[0].double().numpy(), rcond=None)[0]
    assert np.square(x_BND[0] @ w_BD - y_BN[0].numpy()).sum() > 0.01  # noise that no function explains


def test_answers_read_the_past_alone(task, model):
    """A changed y changes the answers behind it, and neither its own nor those before it."""
    model.eval()
    vectors_BTD, _ = task.draw("train", 0, 1)
    changed = vectors_BTD.clone()
    changed[0, 2 * 3 + 1, 0] += 1.0  # y4
    a, b = model(vectors_BTD)[0, ::2, 0], model(changed)[0, ::2, 0]
    assert torch.equal(a[:4], b[:4]) and not torch.isclose(a[4:], b[4:]).any()


def test_every_matrix_has_a_part(model):
    parts = {piece.name: (piece.part, piece.axes) for piece in pieces(model)}
    assert parts["embedding.read_in.weight"] == ("read-in", ("C", "inputs"))
    assert parts["head.weight"] == ("read-out", ("outputs", "C"))
    assert not [name for name, (part, _) in parts.items() if part == "other"]
    assert letters(model.config)["inputs"] == D


def test_the_loss_is_the_squared_error_at_every_y(task, model):
    batch = task.draw("train", 1, 4)
    loss = task.loss(model, batch)
    with torch.no_grad():
        found_BTI = model(batch[0])
    answers = [[float(found_BTI[b, 2 * k, 0]) for k in range(N)] for b in range(4)]
    expected = sum((answers[b][k] - float(batch[1][b, k])) ** 2 for b in range(4) for k in range(N))
    assert float(loss.sum.detach()) == pytest.approx(expected, rel=1e-5) and loss.count == 4 * N
    rows = task.rows(model, batch)
    assert float(rows.sums_B.sum().detach()) == pytest.approx(expected, rel=1e-5) and rows.counts_B.tolist() == [N] * 4


def test_ridge_and_least_squares_are_those_of_scikit_learn(task):
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors_BTD, y_BN = (part.double().numpy() for part in task.draw("test", 0, 3))
    x_BND = vectors_BTD[:, ::2]
    for penalty in (0.25, 0.0):
        found_BN = ridge_predictions(x_BND, y_BN, penalty)
        assert not found_BN[:, 0].any()
        for b in range(3):
            for k in range(1 if penalty else D, N):
                known = x_BND[b, :k], y_BN[b, :k]
                if penalty:
                    w_D = linear_model.Ridge(alpha=penalty, fit_intercept=False).fit(*known).coef_
                else:
                    w_D = linear_model.LinearRegression(fit_intercept=False).fit(*known).coef_
                assert found_BN[b, k] == pytest.approx(x_BND[b, k] @ w_D, abs=1e-7)


class Oracle(torch.nn.Module):
    """Ridge regression in the place of a model; `penalty` is another than the best."""

    def __init__(self, penalty: float):
        super().__init__()
        self.penalty, self.weight = penalty, torch.nn.Parameter(torch.zeros(1))

    def forward(self, vectors_BTD):
        x_BND = vectors_BTD[:, ::2].double().numpy()
        y_BN = np.append(vectors_BTD[:, 1::2, 0].double().numpy(), np.zeros((len(x_BND), 1)), axis=1)
        found_BTI = torch.zeros(*vectors_BTD.shape[:2], 1)
        found_BTI[:, ::2, 0] = torch.from_numpy(ridge_predictions(x_BND, y_BN, self.penalty))
        return found_BTI


def test_the_penalty_that_is_best_is_the_variance_of_the_noise(task):
    batches = [task.draw("test", 0, 3000)]
    best, other = (errors_in_context(task, Oracle(penalty), batches) for penalty in (0.25, 4.0))
    assert best.model == pytest.approx(best.ridge, rel=1e-4) and best.worst_ratio == pytest.approx(1, rel=1e-4)
    assert other.worst_ratio > 1.1
    assert all(plain > ridge for plain, ridge in zip(best.least_squares[1:], best.ridge[1:], strict=True))
    assert best.model[0] == pytest.approx(D + 0.25, rel=0.1) and len(best.model) == N
    assert f"{best.worst_ratio:.3f}" in best.lines()[-1] and len(best.lines()) == N + 2
    assert [line.name for line in best.figures()[0].lines] == ["model", "ridge", "least squares"]


def test_batches_are_the_same_for_any_number_of_processes(task):
    one = task.batches("train")
    ranks = [task.batches("train", rank, 2) for rank in range(2)]
    for _ in range(3):
        whole, parts = next(one), [next(batches) for batches in ranks]
        assert all(torch.equal(w, torch.cat(p)) for w, p in zip(whole, zip(*parts, strict=True), strict=True))
    again = task.batches("train")
    again.load_state_dict({**one.state_dict(), "step": 2})
    assert torch.equal(next(again)[1], whole[1])
    assert not torch.equal(task.draw("validation", 2, 6)[1], whole[1])


WORDS = [
    "task.inputs=1",
    "task.examples=5",
    "task.held_out=100",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "training.batch_size=16",
    "training.eval_every=4",
    "training.sample_every=4",
    "training.checkpoint_every=4",
    "training.dropout=0.1",
]


def test_a_run_resumes_to_the_bit_and_its_folder_holds_the_model(tmp_path):
    whole, cut = (recipes.train("icl-linear", [*WORDS, "training.steps=8"], out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()
    bundle = gf.load(whole.path)
    assert bundle.model.reads == "vectors" and bundle.processor == VectorProcessor(1)
    assert bundle.model(torch.from_numpy(bundle.processor.encode([[0.5], [1.0], [2.0]]))[None]).shape == (1, 3, 1)


def test_evaluate_shows_the_error_by_examples(glassformer, tmp_path):
    run = recipes.train("icl-linear", [*WORDS, "training.steps=2"], out=tmp_path / "run").path
    found = json.loads(glassformer("evaluate", run, "--split", "test", "--json").out)
    assert found["n"] == 100 and len(found["model"]) == len(found["ridge"]) == 5 and found["squared_error"][1] == 500
    assert found["squared_error"][0] == pytest.approx(np.mean(found["model"]), rel=1e-5)
    lines = glassformer("evaluate", run, "--split", "test").out.splitlines()
    assert lines[0].startswith("squared error") and len(lines) == 1 + 5 + 2


def test_a_small_model_learns_a_slope_in_context(tmp_path):
    """After 4 examples the error is a small part of that after none."""
    words = [*WORDS[:5], "model.n_embd=32", "training.steps=400", "training.batch_size=64", "training.eval_every=400"]
    run = recipes.train("icl-linear", [*words, "training.sample_every=0", "task.noise=0.1"], out=tmp_path / "run")
    model, task = recipes.opening.open_run(run.path)
    errors = task.extra_scores(model, "test").model
    assert errors[4] < 0.35 * errors[0]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data.source=play.txt"], ["linear-functions"]),
        (["tokenizer.kind=bytes"], ["tokenizer"]),
        (["task.noise=-1"], ["noise", "0"]),
        (["task.inpts=3"], ["inputs"]),
        (["model.block_size=9"], ["block_size", "31"]),
        (["model.kind=decoder"], ["vector_decoder"]),
        (["data.max_tokens=9"], ["max_tokens"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, words, names):
    refused("train", "icl-linear", *words, code=2, names=names)


def test_vectors_of_another_shape_are_refused(task, model, tmp_path):
    with pytest.raises(UsageError, match="rows, 3"):
        VectorProcessor(3).encode([[1.0, 2.0]])
    with pytest.raises(UsageError, match="finite"):
        VectorProcessor(1).encode([[float("nan")]])
    with pytest.raises(UsageError, match="block_size=13"):
        model(torch.zeros(1, 14, D))
    with pytest.raises(UsageError, match="did you mean test"):
        task.draw("tests", 0, 1)
    (tmp_path / "preprocessor_config.json").write_text('{"processor_type": "VectorProcessor", "size": 0}')
    with pytest.raises(ModelFolderError, match="size"):
        load_vector_processor(tmp_path)
