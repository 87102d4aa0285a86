"""Examples of one's own: read from files of several kinds, split the same way each time, refused in one clear line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from glassformer.data import examples as module
from glassformer.data.examples import Example, load_examples, references, split_by_group
from glassformer.errors import DataError


def write(path: Path, *rows: object, encoding: str = "utf-8-sig") -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding=encoding)
    return str(path)


def everything(splits: dict[str, list[Example]]) -> Counter[Example]:
    return Counter(example for rows in splits.values() for example in rows)


def test_every_kind_of_file_gives_the_same_examples(tmp_path):
    pairs = [(f"the {i} cats", f"les {i} chats") for i in range(40)]
    files = [
        write(tmp_path / "a.jsonl", *({"source": s, "target": t, "note": 1} for s, t in pairs), ""),
        write(tmp_path / "b.jsonl", *({"text": s, "label": t} for s, t in pairs)),
        write(tmp_path / "c.tsv", "source\ttarget", *(f"{s}\t{t}" for s, t in pairs)),
        write(tmp_path / "d.tsv", *(f" {s}\t{t} \r" for s, t in pairs)),
        write(tmp_path / "E.NDJSON", *({"source": s, "target": t} for s, t in pairs)),
        write(tmp_path / "f.json", json.dumps([{"text": s, "label": t} for s, t in pairs], indent=1)),
        write(tmp_path / "G.TSV", *(f"{s}\t{t}" for s, t in pairs), encoding="utf-16"),
        write(tmp_path / "x.en", *(s for s, _ in pairs)) + "," + write(tmp_path / "x.fr", *(t for _, t in pairs)),
    ]
    loaded = [load_examples(file) for file in files]
    assert everything(loaded[0]) == Counter(Example(*pair) for pair in pairs)
    assert [len(loaded[0][split]) for split in ("train", "validation", "test")] == [36, 2, 2]
    assert all(splits == loaded[0] for splits in loaded)


def test_text_alone_has_an_empty_target_and_labels_may_be_numbers(tmp_path):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(9)] + [{"text": "no label"}]
    found = everything(load_examples(write(tmp_path / "a.jsonl", *rows)))
    assert found[Example("text 3", "1")] == found[Example("no label", "")] == 1


def test_the_files_own_splits_are_kept_and_what_is_missing_is_held_out(tmp_path):
    rows = [{"source": f"s{i}", "target": "t", "split": "train"} for i in range(60)]
    test = [{"source": "s1", "target": "other", "split": "test"}]
    splits = load_examples(write(tmp_path / "a.jsonl", *rows, *test))
    assert splits["test"] == [Example("s1", "other")]
    assert (len(splits["train"]), len(splits["validation"])) == (57, 3)
    assert len(everything(splits)) == 61
    shown = write(tmp_path / "b.tsv", "one\teins\ttrain", "two\tzwei\tvalidation", "three\tdrei\ttest")
    assert load_examples(shown) == {
        "train": [Example("one", "eins")],
        "validation": [Example("two", "zwei")],
        "test": [Example("three", "drei")],
    }


def test_equal_sources_stay_together_and_a_new_line_moves_few_others(tmp_path):
    rows = [{"source": f"word {i % 50}", "target": f"way {i}"} for i in range(100)]
    splits = load_examples(write(tmp_path / "a.jsonl", *rows))
    sources = {split: {e.source for e in found} for split, found in splits.items()}
    assert sum(map(len, sources.values())) == 50
    more = load_examples(write(tmp_path / "b.jsonl", *rows, {"source": "a new one", "target": "x"}))
    assert sources["test"] <= {e.source for e in more["test"]} | {"a new one"}


def test_the_first_held_out_examples_are_a_fair_sample_of_all():
    """Rows in order of their class, as packages have them. Of the first 200 held-out ones the half of each class, give
    or take 5 standard deviations of a binomial (7.1): once in two million."""
    rows = [(Example(f"text {i}", str(i // 2000)), f"text {i}") for i in range(4000)]
    splits = module.in_hash_order(split_by_group(rows, validation=0.25, test=0.25))
    assert {split: len(found) for split, found in splits.items()} == {"train": 2000, "validation": 1000, "test": 1000}
    for split in ("validation", "test"):
        assert abs(sum(e.target == "1" for e in splits[split][:200]) - 100) < 36


def test_groups_are_never_torn():
    rows = [(Example(f"{page} {i}", ""), f"page {page}") for page in range(30) for i in range(page + 1)]
    splits = split_by_group(rows, validation=0.1, test=0.2)
    homes = {page: {s for s in splits for e in splits[s] if e.source.split()[0] == str(page)} for page in range(30)}
    assert all(len(home) == 1 for home in homes.values())
    assert 46 <= len(splits["validation"]) < 46 + 30 and 93 <= len(splits["test"]) < 93 + 30
    with pytest.raises(DataError, match="2 groups of examples; train, test, validation need one each"):
        split_by_group([(Example("a"), "a"), (Example("b"), "b")])
    assert all(split_by_group([(Example(g), g) for g in "abc"]).values())


def test_references_are_all_targets_of_a_source():
    rows = [Example("a", "1"), Example("b", "2"), Example("a", "3"), Example("a", "1")]
    assert references(rows) == {"a": ["1", "3"], "b": ["2"]}


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", ['{"source": "a"'], r"a\.jsonl:1: not JSON .*mend the line"),
        ("a.jsonl", ["{}", "[" * 100_000], r"a\.jsonl:1: the field 'text' is missing; it has: none"),
        (
            "a.jsonl",
            ['{"source": "a", "target": "b"}', '{"source": "a"}'],
            r"a\.jsonl:2: the field 'target' is missing",
        ),
        ("a.jsonl", ['{"source": " ", "target": "b"}'], r"a\.jsonl:1: the field 'source' is empty"),
        ("a.jsonl", ['{"source": "a", "target": null}'], r"a\.jsonl:1: the field 'target' is null, not text"),
        ("a.jsonl", ['{"text": ["a"]}'], r"a\.jsonl:1: the field 'text' is \[\"a\"\], not text"),
        ("a.jsonl", ['{"text": "a", "split": "tets"}'], r"a\.jsonl:1: split='tets' is unknown; did you mean test\?"),
        (
            "a.jsonl",
            ['{"text": "a", "split": "test"}', '{"text": "b"}'],
            r"a\.jsonl:2: some lines have a split and some",
        ),
        ("a.jsonl", ['{"text": "a"}', '{"text": "b"}'], r"a\.jsonl: too few examples to train on, validate and test"),
        ("a.tsv", ["a\tb", "a b"], r"a\.tsv:2: 1 column between tabs; every line has source, target"),
        ("a.tsv", ["a b"], r"a\.tsv:1: 1 column between tabs; every line has source, target"),
        ("a.tsv", ["a\tb", "\tb"], r"a\.tsv:2: the field 'source' is empty"),
        ("a.txt", ["a"], r"a\.txt: examples come from \.jsonl, .*, \.csv files, or two files"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_number(tmp_path, name, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        load_examples(write(tmp_path / name, *lines))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_files_whose_lines_do_not_answer_each_other_are_refused(tmp_path):
    english, french = write(tmp_path / "a.en", "one", "two", "three"), write(tmp_path / "a.fr", "un", "deux")
    with pytest.raises(DataError, match=r"a\.en has 3 lines and .*a\.fr 2: line n of one must translate line n"):
        load_examples(f"{english},{french}")
    gap = write(tmp_path / "b.fr", "un", "", "trois")
    with pytest.raises(DataError, match=r"b\.fr:2: the field 'target' is empty"):
        load_examples(f"{english},{gap}")
    with pytest.raises(DataError, match=r"c\.fr: no such file"):
        load_examples(f"{english},{tmp_path / 'c.fr'}")


def test_lines_are_bounded_before_they_are_read_and_bytes_must_be_utf8(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LINE_BYTES", 100)
    good = json.dumps({"text": "x" * 80})
    with pytest.raises(DataError, match=r"a\.jsonl:2: longer than 100 bytes"):
        load_examples(write(tmp_path / "a.jsonl", good, json.dumps({"text": "x" * 100})))
    (tmp_path / "b.tsv").write_bytes(b"a\tb\ncaf\xe9\tb\n")
    with pytest.raises(DataError, match=r"b\.tsv:2: not UTF-8 at byte 3 \(0xe9\) of the line; .*iconv -f LATIN1"):
        load_examples(tmp_path / "b.tsv")


def test_a_name_that_is_nearly_right_gets_a_hint(tmp_path):
    with pytest.raises(DataError, match="en-f: no such file or set of examples; did you mean en-fr"):
        load_examples("en-f")
    path = write(tmp_path / "pairs.tsv", "a\tb")
    with pytest.raises(DataError, match=r"did you mean .*pairs\.tsv"):
        load_examples(path.replace("pairs", "pair"))


def test_a_csv_file_names_its_columns(tmp_path):
    path = tmp_path / "molecules.csv"
    path.write_text('split,smiles,label\ntrain,"CC(=O)O",1.5\n\ntrain,CCO,-0.2\nvalidation,C,0\ntest,N,"2"\n')
    examples = load_examples(path)
    assert examples["train"] == [Example("CC(=O)O", "1.5"), Example("CCO", "-0.2")]
    assert examples["test"] == [Example("N", "2")]
    quoted = tmp_path / "texts.csv"
    quoted.write_text('text,label\n"one, ""two""\nthree",a\nfour,b\nfive,a\n')
    sources = {row.source for rows in load_examples(quoted).values() for row in rows}
    assert sources == {'one, "two"\nthree', "four", "five"}


@pytest.mark.parametrize(
    "text, parts",
    [
        ("smiles,logS\nC,1\n", ["columns smiles, logS", "target or label"]),
        ("smiles,label,more\nC,1,2\n", ["columns smiles, label, more"]),
        ("smiles,label\nC\n", [":2", "1 cells and 2 columns"]),
        ("smiles,smiles\nC,1\n", [":1", "each by another name"]),
        ("smiles,label\n,1\n", [":2", "'smiles' is empty"]),
        ("smiles,label\nC,\n", [":2", "'label' is empty"]),
        ("smiles,label,split\nC,1,tset\n", [":2", "did you mean test"]),
        ("smiles,label\n", ["three different"]),
    ],
)
def test_a_csv_file_with_mistakes_is_one_line(tmp_path, text, parts):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refusal:
        load_examples(path)
    assert all(part in str(refusal.value) for part in [*parts, "bad.csv"]) and "\n" not in str(refusal.value)
