"""Statistics of tensors against torch's own, and the matrices of fused ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from toys import toy_model

from glassformer.inspection import tensors
from glassformer.layers import int8_copy


def test_every_parameter_is_there_once_with_torch_s_numbers():
    for family in ("classic", "modern"):
        model = toy_model(family)
        whole = {row.name: row for row in tensors(model).tensors if not row.piece}
        assert list(whole) == [name for name, _ in model.named_parameters()]
        for name, p in model.named_parameters():
            row, x = whole[name], p.detach().double()
            expected = [x.mean(), x.std(correction=0), x.min(), x.max(), x.norm(), (x == 0).double().mean()]
            found = [row.mean, row.std, row.least, row.most, row.norm, row.zeros]
            np.testing.assert_allclose(found, [float(value) for value in expected], rtol=1e-9, atol=1e-12)
            assert row.shape == tuple(p.shape) and row.dtype == "float32"
            counts = np.histogram(p.detach().numpy(), bins=row.edges.astype(np.float32))[0]
            assert row.counts.sum() == p.numel() and np.abs(row.counts - counts).sum() <= 2, "ends of bins aside"


def test_the_matrices_of_a_fused_one():
    model = toy_model("modern")
    rows = {(row.name, row.piece): row for row in tensors(model, "blocks.1.*").tensors}
    attention, name = model.blocks[1].attention, "blocks.1.attention.qkv.weight"
    assert rows[name, ""].axes == "((H + 2 K) D, C)" and rows[name, "key"].axes == "(K D, C)"
    q, k, v = attention.qkv.weight.detach().split(attention.qkv_rows)
    for piece, part in (("query", q), ("key", k), ("value", v)):
        assert rows[name, piece].mean == pytest.approx(float(part.double().mean()), abs=1e-12)
        assert rows[name, piece].shape == tuple(part.shape)
    assert (sum(rows[name, p].counts for p in ("query", "key", "value")) == rows[name, ""].counts).all()
    gate, up = model.blocks[1].feedforward.gate_up.weight.detach().chunk(2)
    fused = "blocks.1.feedforward.gate_up.weight"
    assert rows[fused, "gate"].norm == pytest.approx(float(gate.norm()), rel=1e-5)
    assert rows[fused, "up"].norm == pytest.approx(float(up.norm()), rel=1e-5)
    assert rows[fused, ""].axes == "(2 F, C)"
    assert {row.axes for row in tensors(toy_model("classic"), "*qkv.*").tensors if not row.piece} == {
        "(3 H D, C)", "(3 H D)",
    }  # fmt: skip


def test_zeros_are_counted_and_one_number_has_a_histogram():
    model = toy_model("classic")
    with torch.no_grad():
        model.blocks[0].attention.out.weight[3] = 0.0
        model.final_norm.weight.fill_(1.5)
    rows = {row.name: row for row in tensors(model).tensors}
    assert rows["blocks.0.attention.out.weight"].zeros == pytest.approx(1 / 15)
    flat = rows["final_norm.weight"]
    assert flat.counts.sum() == 15 and (flat.edges[0], flat.edges[-1]) == (1.0, 2.0) and flat.std == 0


def test_of_a_large_tensor_every_kth_number_is_in_the_histogram(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["glassformer.inspection.tensors"], "HISTOGRAM_OF", 100)
    model = toy_model("classic")
    (row,) = tensors(model, "embedding.token.weight").tensors
    assert row.numel == 61 * 15 and row.counts.sum() == -(-61 * 15 // 10), "a step of 10"
    assert row.mean == pytest.approx(float(model.embedding.token.weight.detach().double().mean()), abs=1e-12)


def test_one_tensor_from_afar_and_its_corner():
    model = toy_model("modern", vocab_size=131)
    weight = model.embedding.token.weight.detach()  # 131 x 42 in cells of 3 x 2
    view = tensors(model, "embedding.token.weight")
    assert view.cell == (3, 2) and view.overview.shape == (44, 21)
    assert view.overview[2, 5] == pytest.approx(float(weight[6:9, 10:12].mean()), abs=1e-6)
    assert view.overview[43, 20] == pytest.approx(float(weight[129:131, 40:42].mean()), abs=1e-6), "the last is smaller"
    assert (view.corner == weight[:8, :8].numpy()).all()
    small = tensors(model, "blocks.0.attention.query_norm.weight")
    assert small.cell == (1, 1) and small.overview.shape == (1, 10)


def test_compressed_matrices_are_shown_as_the_numbers_they_stand_for():
    model = int8_copy(toy_model("modern"))
    rows = {(row.name, row.piece): row for row in tensors(model).tensors}
    layer = model.blocks[0].attention.qkv
    values = layer.weight.double() * layer.scale.double()[:, None]
    row = rows["blocks.0.attention.qkv.weight", ""]
    assert row.dtype == "int8" and row.mean == pytest.approx(float(values.mean()), abs=1e-7)
    assert rows["blocks.0.attention.qkv.weight", "value"].shape == (20, 42)


def test_a_tied_head_is_the_table_that_it_reads_with():
    model = toy_model("classic")
    assert tensors(model, "head.weight").tensors[0].name == "embedding.token.weight"
