"""Molecules as graphs and as SMILES: atoms and distances, scaffolds, a run of each, views, and mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import shaken

import glassformer as gf
from glassformer import recipes
from glassformer.data.examples import load_examples
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.generation import predict
from glassformer.models import build_model, make_config
from glassformer.processors.molecules import MoleculeProcessor, load_molecule_processor, scaffold_of

Chem = pytest.importorskip("rdkit.Chem", reason="needs the package rdkit")
PROCESSOR = MoleculeProcessor()
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def model_of(*patterns: str, **fields):
    shape = {"stem": "graph", "vocab_size": PROCESSOR.n_ids, "n_classes": 1, "block_size": 64, "n_layer": 2,
             "n_head": 3, "n_embd": 18, "patterns": patterns, **fields}  # fmt: skip
    return shaken(build_model(make_config("encoder", **shape))).eval()


def vectors(model, *smiles: str) -> torch.Tensor:
    parts = PROCESSOR.arguments([PROCESSOR.encode(each) for each in smiles])
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(part) for name, part in parts.items()})


def test_a_molecule_is_atoms_and_distances_along_bonds():
    acid = PROCESSOR.encode("CC(=O)O.[Na+]")
    assert PROCESSOR.names(acid) == ["C0", "C1", "O2", "O3", "Na4"]
    assert acid.distances.tolist() == [
        [0, 1, 2, 2, -1], [1, 0, 1, 1, -1], [2, 1, 0, 2, -1], [2, 1, 2, 0, -1], [-1, -1, -1, -1, 0],
    ]  # fmt: skip
    described = [PROCESSOR.row_names[i] for i in acid.ids[2]]
    assert described == [
        "element=O",
        "bonds=1",
        "charge=0",
        "hydrogens=0",
        "aromatic=False",
        "hybridisation=SP2",
        "ring=0",
    ]
    rare = [PROCESSOR.row_names[i] for i in PROCESSOR.encode("[Fe+3]").ids[0]]
    assert rare[0] == "element=other" and rare[2] == "charge=other"


@pytest.mark.parametrize("patterns", [("full",), ("graph(1)",), ("graph(1)", "full"), ("graph(2)",)])
def test_the_way_a_molecule_is_written_changes_nothing(patterns):
    """Ten random SMILES of aspirin give one number, in each kind of attention, alone and beside a larger molecule."""
    model, molecule = model_of(*patterns), Chem.MolFromSmiles(ASPIRIN)
    written = Chem.MolToRandomSmilesVect(molecule, 10, 3)
    assert len(set(written)) > 3
    numbers = predict(model, PROCESSOR, [ASPIRIN, *written, ASPIRIN + ".CCCCCCCCCC"], batch_size=12)
    assert numbers[:11].std() < 1e-4 * numbers.abs().max() and not torch.isclose(numbers[11], numbers[0])
    torch.testing.assert_close(predict(model, PROCESSOR, [ASPIRIN])[0], numbers[0], rtol=1e-4, atol=1e-5)


def test_along_bonds_an_atom_learns_of_another_as_far_away_as_there_are_layers():
    """Two layers of graph(1) see two bonds far; with full attention every atom sees the changed one."""
    for patterns, unchanged in ((("graph(1)",), [True, True, True, False, False, False]), (("full",), [False] * 6)):
        a, b = (vectors(model_of(*patterns), smiles)[0] for smiles in ("CCCCCO", "CCCCCN"))
        same = [bool(torch.allclose(x, y, atol=1e-5)) for x, y in zip(a, b, strict=True)]
        assert same == unchanged


def test_the_sum_over_atoms_counts_them_and_the_mean_does_not():
    """Two molecules side by side, along bonds alone: twice the sum, the same mean; padding adds nothing."""
    for pooling, factor in (("mean", 1.0), ("sum", 2.0)):
        model = model_of("graph(1)", pooling=pooling)
        one, two = vectors(model, "CCO"), vectors(model, "CCO.OCC", "CCO.OCC.CCCCCC")
        pooled = model.pool(two, torch.tensor([6, 12]))[:1]
        torch.testing.assert_close(pooled, factor * model.pool(one, torch.tensor([3])), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.pool(one), model.pool(one, torch.tensor([3])), rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match=r"pooling=sum.*read in order; use mean"):
        model_of("full", stem="text", pooling="sum")


def test_scaffolds_keep_rings_and_what_joins_them():
    assert scaffold_of("Cc1ccccc1CCN") == "c1ccccc1" and scaffold_of("CCO") == ""
    assert scaffold_of("c1ccccc1CCC1CC1C") == scaffold_of("Oc1ccccc1CCC1CC1")


@pytest.mark.parametrize(
    "smiles",
    [
        "",
        "C(C",
        "hello",
        "C1CC",
        "c1cccc1",
        "C(C)(C)(C)(C)C",
        "C" * 600,
        "C" * 6000,
        "\x00",
        "CCO ethanol",
        "C\ud800",
        "Ｃ",
    ],
)
def test_what_is_no_molecule_is_one_line(smiles, capfd):
    with pytest.raises(DataError) as refusal:
        PROCESSOR.encode(smiles)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200 and capfd.readouterr().err == ""


def test_named_sets_are_split_by_scaffold():
    for name, count in (("solubility", 1282), ("freesolv", 642)):
        examples = load_examples(name, quiet=True)
        assert sum(map(len, examples.values())) == count
        found = {split: {scaffold_of(e.source) for e in rows} - {""} for split, rows in examples.items()}
        assert not found["train"] & found["test"] and not found["train"] & found["validation"]


ALKANES = [("C" * n + end, n + 2.5 * (end == "O")) for n in range(1, 30) for end in ("", "O", "N")]
SMALL = ["model.kind=encoder", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "training.steps=8",
         "training.batch_size=8", "training.eval_every=4", "training.checkpoint_every=4", "training.sample_every=4",
         "training.dropout=0.1", "training.learning_rate=1e-2"]  # fmt: skip


@pytest.fixture
def alkanes(tmp_path):
    path = tmp_path / "alkanes.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{smiles}\t{y}\n" for smiles, y in ALKANES))
    return path


def test_a_property_is_learned_from_graphs_and_resumed_to_the_bit(alkanes, tmp_path, glassformer):
    words = ["task.kind=regress_molecules", "model.patterns=graph(1)", *SMALL]
    whole, cut = (recipes.train(None, words, data=str(alkanes), out=tmp_path / n) for n in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()
    bundle = gf.load(whole.path)
    assert bundle.model.reads == "graph" and bundle.processor == PROCESSOR
    ys = np.array([y for _, y in ALKANES])
    assert bundle.model.config.number_mean == pytest.approx(ys.mean(), abs=2)
    shown = json.loads(glassformer("predict", whole.path, "CCO", "CCCC", "--json").out)
    assert [row["text"] for row in shown] == ["CCO", "CCCC"]
    seen = json.loads(glassformer("look", "attention", whole.path, "CCO", "--json").out)
    assert seen["keys"] == ["C0", "C1", "O2"] and seen["visible"][0][0] == [True, True, False]
    assert "nearest to element=O" in glassformer("look", "neighbours", whole.path, "element=O").out


def test_a_number_is_learned_from_smiles_as_text(alkanes, tmp_path, glassformer):
    words = ["task.kind=regress", "tokenizer.kind=characters", *SMALL]
    run = recipes.train(None, words, data=str(alkanes), out=tmp_path / "text")
    assert "rmse" in json.loads(glassformer("evaluate", run.path, "--split", "test", "--json").out)
    assert float(glassformer("predict", run.path, "CCCO").out) < 60


def test_classes_of_molecules(tmp_path, glassformer):
    path = tmp_path / "ends.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{s}\t{'oxygen' if s[-1] == 'O' else 'none'}\n" for s, _ in ALKANES))
    words = [
        "task.kind=classify_molecules",
        "task.shuffle=1",
        *SMALL,
        "training.steps=200",
        "training.eval_every=50",
        "training.dropout=0",
    ]
    run = recipes.train(None, words, data=str(path), out=tmp_path / "run")
    assert glassformer("classify", run.path, "CCO").out.startswith("oxygen")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["tokenizer.kind=bytes"], ["tokenizer"]),
        (["model.patterns=window(3)"], ["window", "graph(1)"]),
        (["model.positions=rotary"], ["positions"]),
        (["task.drop=0.1"], ["drop"]),
    ],
)
def test_what_does_not_fit_is_refused(words, names, alkanes, refused):
    refused("train", "task.kind=regress_molecules", *words, "--data", alkanes, code=2, names=names)


def test_a_damaged_molecule_and_a_damaged_target_are_named(tmp_path, refused):
    for row, name in (("C(C\t1", "C(C"), ("CC\tmany", "many")):
        path = tmp_path / "bad.tsv"
        path.write_text("text\tlabel\n" + f"{row}\n" * 1 + "".join(f"{s}\t{y}\n" for s, y in ALKANES[:20]))
        refused("train", "task.kind=regress_molecules", "--data", path, code=1, names=[name])


def test_a_processor_of_other_features_is_refused(tmp_path):
    PROCESSOR.save(tmp_path)
    assert load_molecule_processor(tmp_path) == PROCESSOR
    (tmp_path / "preprocessor_config.json").write_text('{"processor_type": "MoleculeProcessor", "features": ["x"]}')
    with pytest.raises(ModelFolderError, match="features"):
        load_molecule_processor(tmp_path)
