"""`glassformer translate`, `classify` and `fill` as a person types them, on small models saved as runs save them."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import torch
from toys import shaken, toy_model

from glassformer.generation import answer, classify, fill_masks
from glassformer.history import build_history
from glassformer.hub import load, load_source_tokenizer, save
from glassformer.models import Encoder, EncoderConfig, EncoderDecoder, EncoderDecoderConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS, SENTENCE_SPECIALS, span_specials

ENGLISH = ["the cat sat on the mat", "a dog", "the dog sat"]
FRENCH = ["le chat est assis", "un chien", "le chien est assis"]
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 12, "n_hidden": 23, "block_size": 19}


def learned(specials, texts=(*ENGLISH, *FRENCH), size=290):
    return build_tokenizer("bpe", texts * 3, vocab_size=size, specials=specials)


def pair(kind, tokenizer, **changes):
    """A sequence-to-sequence model that answers in few tokens."""
    ids = {"start_token": tokenizer.special_tokens["<s>"], "end_token": tokenizer.special_tokens["</s>"]}
    fields = {"vocab_size": tokenizer.vocab_size, **ids, **changes}
    if kind == "seq2seq":
        model = build_history(kind, **fields, n_embd=12, n_hidden=13, block_size=19)
    else:
        free = {"tied_head": False, "head_bias": True}
        model = EncoderDecoder(EncoderDecoderConfig.make(family="modern", **SHAPE, **free, **fields))
    shaken(model)
    with torch.no_grad():
        (model.head if kind == "seq2seq" else model.decoder.head).bias[ids["end_token"]] += 2
    return model.eval()


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """Model folders by kind."""
    home = tmp_path_factory.mktemp("models")
    sentences, masks, spans = learned(SENTENCE_SPECIALS), learned(MASKED_SPECIALS), learned(span_specials(3))
    save(home / "translator", pair("transformer", sentences), sentences)
    letters = build_tokenizer("characters", ENGLISH)
    sounds = build_tokenizer("words", FRENCH)
    other = {"source_vocab_size": letters.vocab_size}
    save(home / "speller", pair("transformer", sounds, **other), sounds, letters)
    save(home / "vector", pair("seq2seq", sentences), sentences)
    save(home / "spans", pair("transformer", spans), spans)
    classes = {**SHAPE, "vocab_size": masks.vocab_size, "n_classes": 3, "pooling": "mean"}
    reader = shaken(Encoder(EncoderConfig.make(**classes))).eval()
    save(home / "classes", reader, masks, labels=("bad", "fair", "good"))
    masked = {**SHAPE, "vocab_size": masks.vocab_size, "token_head": "vocabulary"}
    save(home / "masks", shaken(Encoder(EncoderConfig.make(**masked))).eval(), masks)
    save(home / "decoder", toy_model(vocab_size=290), learned(("<|endoftext|>",)))
    return home


def lines(result) -> list[str]:
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


def test_each_line_of_a_file_is_answered_by_one_line(glassformer, saved):
    """Empty lines stay empty, so that line n answers line n."""
    given = [ENGLISH[0], "", *ENGLISH[1:]]
    got = lines(glassformer("translate", saved / "translator", stdin=("\n".join(given) + "\n").encode()))
    model, tokenizer = load(saved / "translator")
    best = [a.text for a in answer(model, tokenizer, ENGLISH)]
    assert got == [best[0], "", *best[1:]] and len(set(best)) > 1
    assert lines(glassformer("translate", saved / "translator", *ENGLISH)) == best


def test_the_n_best_answers_have_log_probabilities_and_scores(glassformer, saved):
    got = lines(glassformer("translate", saved / "vector", ENGLISH[0], "--n-best", 3, "--beam", 5, "-n", 6))
    model, tokenizer = load(saved / "vector")
    (best,) = answer(model, tokenizer, ENGLISH[:1], n_best=3, beam=5, max_new_tokens=6)
    assert got[0].split() == ["log-prob.", "score", "answer"]
    for line, each in zip(got[1:], (best, *best.alternatives), strict=True):
        assert line.split(maxsplit=2)[:2] == [f"{each.log_probability:.2f}", f"{each.score:.2f}"]
        assert line.endswith(" ".join(each.text.splitlines()))


def test_json_holds_tokens_and_probabilities(glassformer, saved):
    """The source and the answer have different tokenizers."""
    out = glassformer("translate", saved / "speller", "a dog", "--json", "--n-best", 2, "--length-penalty", 0).out
    (row,) = json.loads(out)
    model, tokenizer = load(saved / "speller")
    reader = load_source_tokenizer(saved / "speller")
    assert reader != tokenizer
    (best,) = answer(model, tokenizer, ["a dog"], source_tokenizer=reader, n_best=2, length_penalty=0)
    assert row["source"] == "a dog" and row["answer"] == json.loads(json.dumps(best.to_dict()))
    assert row["answer"]["score"] == row["answer"]["log_probability"]


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_the_cross_attention_is_drawn_with_the_tokens_as_labels(glassformer, saved, tmp_path, kind):
    result = glassformer("translate", saved / "translator", ENGLISH[0], "--attention", f"seen.{kind}")
    assert result.code == 0 and result.err.endswith(f": seen.{kind}\n")
    text = (tmp_path / f"seen.{kind}").read_text(encoding="utf-8")
    assert "<svg" in text
    labels = {unescape(label) for label in re.findall(r"<(?:text|span|p)[^>]*>([^<]+)<", text)}
    _, tokenizer = load(saved / "translator")
    read = {tokenizer.token_text(i).replace(" ", "␣") for i in tokenizer.encode(ENGLISH[0])}
    assert read | {"</s>", "Layer 1", "head 2"} <= labels


def test_classes_come_with_their_names_and_shares(glassformer, saved):
    model, tokenizer = load(saved / "classes")
    p_NC = classify(model, tokenizer, ENGLISH)
    names = ["bad", "fair", "good"]
    got = lines(glassformer("classify", saved / "classes", *ENGLISH))
    shown = json.loads(glassformer("classify", saved / "classes", "--json", stdin="\n".join(ENGLISH).encode()).out)
    for line, row, text, p_C in zip(got, shown, ENGLISH, p_NC.tolist(), strict=True):
        best = names[p_C.index(max(p_C))]
        assert line.split()[0] == best == row["label"] and f"{best} {max(p_C):.1%}" in line and line.endswith(text)
        assert row["text"] == text and row["probabilities"] == pytest.approx(dict(zip(names, p_C, strict=True)))


def test_a_mask_is_filled_with_its_most_likely_tokens(glassformer, saved):
    model, tokenizer = load(saved / "masks")
    found, filled = fill_masks(model, tokenizer, "the <mask> sat on <mask>", alternatives=2)
    got = lines(glassformer("fill", saved / "masks", "the <mask> sat on <mask>", "--alternatives", 2))
    assert [line[:7] for line in got[:2]] == ["mask 1:", "mask 2:"] and got[2] == " ".join(filled.text.splitlines())
    assert f"{found[1][0].probability:.1%}" in got[1] and got[1].count("%") == 2
    (row,) = json.loads(glassformer("fill", saved / "masks", "the <mask> sat on <mask>", "--json").out)
    assert [a["token"] for a in row["masks"][0]][:2] == [a.token for a in found[0]] and len(row["masks"][0]) == 5
    assert row["fillings"][0]["text"] == filled.text


def test_gaps_are_filled_by_beam_search_or_by_sampling(glassformer, saved):
    searched = lines(glassformer("fill", saved / "spans", "the <mask> sat", "--n-best", 2, "-n", 7))
    assert len(searched) == 2
    sampled = ["fill", saved / "spans", "the <mask> sat", "--temperature", 1.5, "--n-best", 3, "--json", "-n", 7]
    one, again, other = (json.loads(glassformer(*sampled, "--seed", seed).out) for seed in (1, 1, 2))
    assert one == again != other and len(one[0]["fillings"]) == 3
    assert all(way["text"].startswith("the") and way["text"].endswith(" sat") for way in one[0]["fillings"])


@pytest.mark.parametrize(
    ("kind", "name", "command", "fitting"),
    [
        ("decoder", "Decoder", "translate", "generate"),
        ("masks", "Encoder", "translate", "fill"),
        ("translator", "EncoderDecoder", "classify", "translate"),
        ("classes", "Encoder", "fill", "classify"),
        ("vector", "Seq2Seq", "fill", "translate"),
    ],
)
def test_a_run_of_another_kind_names_the_command_that_fits(refused, saved, kind, name, command, fitting):
    run = saved / kind
    refused(command, run, "a", code=2, names=(f"{run}: its {name} does not {command}", f"glassformer {fitting} {run}"))


@pytest.mark.parametrize(
    ("command", "kind", "words", "names"),
    [
        ("fill", "masks", ["a"], ("'a'", "<mask>")),
        ("fill", "spans", ["<mask>", "--seed", 1], ("--seed", "--temperature 0.8")),
        ("translate", "translator", ["a", "b", "--attention", "a.svg"], ("--attention", "2", "one text")),
        ("translate", "translator", ["a", "--attention", "a.png"], ("a.png", "a.svg")),
        ("translate", "vector", ["a", "--attention", "a.svg"], ("no cross-attention",)),
        ("translate", "translator", ["a", "--n-best", 5], ("n_best=5", "1 to beam=4")),
        ("translate", "translator", [], ("standard input has no text", "in quotes")),
        ("classify", "classes", [], ("standard input has no text", "in quotes")),
        ("classify", "classes", [" "], ("the text is empty",)),
    ],
)
def test_wrong_use_is_one_line_and_no_traceback(refused, saved, command, kind, words, names):
    refused(command, saved / kind, *words, code=2, names=names)


def test_text_that_is_not_utf_8_is_refused(refused, saved):
    refused("translate", saved / "translator", code=2, stdin=b"d\xe9j\xe0 vu", names=("not UTF-8", "iconv"))
