"""Suites: what a language model answers, against transformers and lm-evaluation-harness."""

from __future__ import annotations

import contextlib
import json
import re
import types

import pytest
import torch
from toys import toy_model

from glassformer.data import suites
from glassformer.data.addition import steps_of_sum
from glassformer.data.questions import examples_and_questions, question
from glassformer.data.suites import load_suite
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Share
from glassformer.evaluation.suites import SuiteScores, chosen, chrf_of, matched
from glassformer.hub import save
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.scratchpad import answer_of, scratchpads_of
from glassformer.tasks.chats import CHAT_TOKENS, use_template
from glassformer.tasks.share_figures import suite_figures
from glassformer.tasks.suites import answer_by_shots, answer_suite

ROWS = [
    {"question": "Which planet is red?", "choices": ["Venus", "Mars", "the moon of Jupiter"], "answer": 1},
    {"question": "What do bees make?", "choices": ["honey", "milk and silk"], "answer": 0},
    {"context": "She poured the coffee into the", "choices": ["mug.", "newspaper.", "cloud."], "answer": 0},
    {"context": "Bees fly.", "question": "Do they walk?", "choices": ["no", "yes, at times"], "answer": 1},
    {"prompt": "She poured the honey into the\n", "choices": ["mug.", "silk"], "answer": 1},
]
# log-likelihoods by lm-evaluation-harness 0.4.13 (simple_evaluate, HFLM) of the first four rows for `toy`: without
# examples, and of the last three after the first row with its answer; and its acc and acc_norm
HARNESS = {
    0: ([[-35.7782, -28.8744, -93.0992], [-8.5037, -40.2377], [-16.47, -56.6253, -29.7101], [-18.4532, -70.2287]],
        0.75, 0.75),
    1: ([[-6.8291, -40.3884], [-16.5807, -51.1567, -37.477], [-16.1153, -67.8643]], 2 / 3, 1.0),
}  # fmt: skip


def prompts_of(row):
    """The text of a row as lm-evaluation-harness gets it."""
    if "question" not in row:
        return row.get("prompt") or row["context"]
    return "".join(f"{row['context']}\n" if "context" in row else "") + f"Question: {row['question']}\nAnswer:"


@pytest.fixture(scope="module")
def toy():
    texts = [f"{prompts_of(row)} {choice}" for row in ROWS for choice in row["choices"]]
    tokenizer = build_tokenizer("bpe", texts * 3, vocab_size=340, specials=CHAT_TOKENS)
    return toy_model(vocab_size=tokenizer.vocab_size, block_size=128, n_embd=30), tokenizer


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("suites") / "model"
    save(path, *toy)
    return path


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def reference(folder, context: str, choice: str) -> float:
    """log p of a choice after a text, one at a time, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    n = len(tokenizer(context.rstrip(), add_special_tokens=False)["input_ids"])
    ids = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(n, len(ids)))


@pytest.mark.parametrize("shots", [0, 2])
def test_log_likelihoods_are_those_of_transformers(toy, folder, suite, shots):
    """Two examples come in an order that the seed draws for each question."""
    first, second = (f"{prompts_of(row)} {row['choices'][row['answer']]}\n\n" for row in ROWS[:2])
    befores = [first + second, second + first] if shots else [""]
    scores = answer_suite(*toy, load_suite(suite), shots=shots)
    for answer, row in zip(scores.answers, ROWS[shots:], strict=True):
        text, space = prompts_of(row), "" if prompts_of(row).endswith("\n") else " "
        expected = [[reference(folder, f"{b}{text}", f"{space}{c}") for c in row["choices"]] for b in befores]
        assert any(answer.log_probs == pytest.approx(sums, abs=2e-4) for sums in expected)


def test_choices_of_one_token_share_a_pass_and_keep_their_log_likelihoods(toy, folder):
    model, tokenizer = toy
    row = {"context": "She poured the", "choices": ["honey", "coffee", "mug", "coffee into"], "answer": 0}
    assert [len(tokenizer.encode(f" {choice}")) for choice in row["choices"]] == [1, 1, 1, 2]
    rows = []
    with watched(model.embedding, rows):
        (answer,) = answer_suite(model, tokenizer, [question(row)]).answers
    assert rows == [2]
    expected = [reference(folder, row["context"], f" {choice}") for choice in row["choices"]]
    assert answer.log_probs == pytest.approx(expected, abs=2e-4)


@contextlib.contextmanager
def watched(module, rows, what=len):
    """Add `what` of the inputs of every call of a module to `rows`."""
    handle = module.register_forward_pre_hook(lambda _, inputs: rows.append(what(inputs[0])))
    yield
    handle.remove()


@pytest.mark.parametrize("shots", [0, 1])
def test_scores_are_those_of_lm_evaluation_harness(toy, suite, shots):
    scores = answer_suite(*toy, load_suite(suite)[:4], shots=shots)
    sums, acc, acc_norm = HARNESS[shots]
    for answer, expected in zip(scores.answers, sums, strict=True):
        assert answer.log_probs == pytest.approx(expected, abs=2e-4)
    assert [scores.shares[name].value for name in ("acc", "acc_norm")] == pytest.approx([acc, acc_norm])


def test_acc_takes_the_likeliest_choice_and_acc_norm_the_likeliest_a_character():
    asked = question({"prompt": "a", "choices": ["yes", "certainly not"], "answer": 1})
    assert chosen(asked, [-3.0, -4.0]).right == {"acc": False, "acc_norm": True}
    assert chosen(asked, [-3.0, -4.0]).text == "yes"
    assert chosen(asked, [-1.0, -13.1]).right == {"acc": False, "acc_norm": False}


def test_choices_in_a_chat_are_the_assistants_turns(toy, suite):
    """What is scored is the answer of a turn without its end, after the examples as turns."""
    model, tokenizer = toy
    use_template(tokenizer, None, [])
    answers = answer_suite(model, tokenizer, load_suite(suite), shots=1, chat=True).answers
    turns = [("user", prompts_of(ROWS[0])), ("assistant", "Mars"), ("user", prompts_of(ROWS[2]))]
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns) + "<|im_start|>assistant\n"
    parts = [tokenizer.special_tokens.get(p, p) for p in re.split(r"(<\|im_start\|>|<\|im_end\|>)", text) if p]
    before = tokenizer.encode_parts(parts)
    for choice, found in zip(ROWS[2]["choices"], answers[1].log_probs, strict=True):
        ids = [*before, *tokenizer.encode(choice)]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids]))[0].double().log_softmax(dim=-1)
        assert found == pytest.approx(
            sum(float(log_probs[place - 1, ids[place]]) for place in range(len(before), len(ids))), abs=2e-4
        )


def test_exact_match_compares_the_greedy_text_up_to_a_stop(toy):
    model, tokenizer = toy
    ids = tokenizer.encode("She poured the")
    start = len(ids)
    with torch.no_grad():
        for _ in range(9):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    text = tokenizer.decode(ids[start:])
    row = {"prompt": "She poured the", "answer": ["something else", text.strip()]}
    (answer,) = answer_suite(model, tokenizer, [question(row)], max_new_tokens=9).answers
    assert answer.text == text and answer.right == {"exact_match": True}
    stop = text.strip()[2:4]
    (answer,) = answer_suite(model, tokenizer, [question(row)], max_new_tokens=9, stop=[stop]).answers
    assert answer.text == text[: text.index(stop)] and answer.right == {"exact_match": False}


@pytest.mark.parametrize(
    ("text", "pattern", "right"),
    [
        (" 42\n", None, True),
        ("It is 42.", None, False),
        ("It is 42.", r"\d+", True),
        ("It is 42, not 43.", r"is (\d+)", True),
        ("none", r"\d+", False),
    ],
)
def test_what_a_pattern_matches_is_compared(text, pattern, right):
    compiled = None if pattern is None else re.compile(pattern)
    assert matched(question({"prompt": "a", "answer": 42}), text, compiled).right == {"exact_match": right}


def test_examples_are_the_rows_of_train_drawn_by_the_seed(toy):
    rows = [question({"prompt": f"She poured {n}", "answer": "mug", "split": "train"}) for n in range(5)]
    rows += [question({"prompt": "the honey", "choices": ["mug", "silk"], "answer": 0}) for _ in range(4)]
    examples, asked = examples_and_questions(rows, 2)
    assert (examples, asked) == (rows[:5], rows[5:])
    one, again, other = (answer_suite(*toy, rows, shots=2, seed=seed).answers for seed in (3, 3, 4))
    assert [a.log_probs for a in one] == [a.log_probs for a in again] != [a.log_probs for a in other]
    assert len({a.log_probs for a in one}) > 1  # each question has examples of its own


def test_intervals_are_wilsons():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    share = Share.of([True] * 81 + [False] * 182)
    assert (share.n, round(share.low, 4), round(share.high, 4)) == (263, 0.2553, 0.3662)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"prompt": "a", "choices": ["x", ""], "answer": 0}, "choice 1"),
        ({"prompt": "a", "choices": [], "answer": 0}, "choices"),
        ({"prompt": "a", "choices": ["x", "x"], "answer": 0}, "equal"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": 2}, "0 to 1"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": -1}, "-1"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": "x"}, "place"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": True}, "True"),
        ({"prompt": " ", "answer": "x"}, "prompt"),
        ({"prompt": "a", "answer": " "}, "answer"),
        ({"prompt": "a", "question": "b", "answer": "x"}, "question"),
        ({"answer": "x"}, "prompt"),
        ({"prompt": "a"}, "answer"),
        ({"prompt": "a", "answer": "x", "worked": ""}, "worked"),
        ({"prompt": "a", "answer": "x", "group": 3}, "group"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": 0, "worked": "so y"}, "worked"),
        ({"prompt": "a", "choises": ["x", "y"], "answer": 0}, "did you mean choices"),
    ],
)
def test_wrong_rows_are_refused(row, named):
    with pytest.raises(DataError, match=re.escape(named)) as caught:
        question(row, "file:7")
    assert str(caught.value).startswith("file:7: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shots": 6}, "5 examples"),
        ({"shots": 5}, "no question"),
        ({"split": "test"}, "test"),
        ({"chat": True}, "chat template"),
    ],
)
def test_what_cannot_be_asked_is_refused(toy, suite, options, named):
    model, tokenizer = toy
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match=named):
        answer_suite(model, tokenizer, load_suite(suite), **options)


def test_questions_that_do_not_fit_are_counted(toy):
    rows = [question({"prompt": "honey " * n, "choices": ["mug", "silk"], "answer": 0}) for n in (1, 200, 300)]
    with pytest.raises(UsageError, match=r"2 of 3 .* 128"):
        answer_suite(*toy, rows)


def test_the_command_prints_accuracies_and_writes_answers(glassformer, folder, suite, tmp_path):
    out = tmp_path / "answers.jsonl"
    result = glassformer("evaluate", folder, "--suite", suite, "--shots", 1, "--out", out, "--json")
    found = json.loads(result.out)
    assert found["acc"]["n"] == 4 and found["acc"]["low"] < found["acc"]["value"] <= found["acc"]["high"]
    assert found["by_chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(answer["acc"] for answer in answers) == 4 * found["acc"]["value"]


@pytest.mark.parametrize("words", [["--shots", "2"], ["--suite", "x.jsonl", "--data", "y"], ["--limit", "3"]])
def test_flags_that_do_nothing_are_refused(refused, folder, words):
    refused("evaluate", folder, *words, code=2, names=[words[-2], ";"])


def test_an_example_shows_its_worked_solution_and_an_answer_counts_without_scratchpads(toy):
    model, tokenizer = toy
    steps = "<scratchpad>honey and mug</scratchpad>coffee"
    rows = [
        question({"prompt": "She poured", "answer": "coffee", "worked": steps, "split": "train"}),
        question({"prompt": "Bees make", "answer": "coffee"}),
    ]
    assert rows[0].shown == f"She poured {steps}"
    assert matched(rows[1], f" {steps}\n").right == {"exact_match": True}
    assert matched(rows[1], " <scratchpad>coffee").right == {"exact_match": False}
    read = []
    with watched(model.embedding, read, lambda ids: tokenizer.decode(ids[0].tolist())):
        answer_suite(model, tokenizer, rows, shots=1, max_new_tokens=1)
    assert "".join(read[:2]) == f"She poured {steps}\n\nBees make"


def test_several_numbers_of_examples_ask_the_same_questions(toy):
    rows = [question({"prompt": f"She poured {n}", "answer": "mug"}) for n in range(5)]
    found = answer_by_shots(*toy, rows, [0, 2, 1], max_new_tokens=1)
    assert [scores.shots for scores in found] == [0, 2, 1]
    for scores in found:
        assert [answer.question.prompt for answer in scores.answers] == ["She poured 2", "She poured 3", "She poured 4"]


def test_right_answers_are_counted_by_group():
    rows = [question({"prompt": "a", "answer": "x", "group": group}) for group in ("hard", "easy", "easy")]
    scores = SuiteScores("s", 2, 0, False, [matched(row, text) for row, text in zip(rows, "yxy", strict=True)])
    by_group = {name: (shares["exact_match"].value, shares["exact_match"].n) for name, shares in scores.groups.items()}
    assert by_group == {"hard": (0.0, 1), "easy": (0.5, 2)}
    assert scores.to_dict()["groups"]["easy"]["exact_match"]["n"] == 2
    (chart,) = suite_figures([scores])
    assert chart.x_labels == ["hard", "easy"] and list(chart.lines[0].y) == [0.0, 0.5]
    assert chart.lines[0].low[1] < 0.5 < chart.lines[0].high[1]


def test_a_curve_over_examples_has_a_line_for_each_suite():
    def scores(suite, shots, texts):
        row = question({"prompt": "a", "answer": "x"})
        return SuiteScores(suite, shots, 0, False, [matched(row, text) for text in texts])

    (chart,) = suite_figures([scores("a", 0, "yy"), scores("a", 4, "xy"), scores("b", 4, "xx")])
    assert chart.x_labels == ["0", "4"]
    assert [(list(line.x), list(line.y)) for line in chart.lines] == [([0, 1], [0.0, 0.5]), ([1], [1.0])]
    with pytest.raises(UsageError, match=r"0,1,2,4"):
        suite_figures([scores("a", 0, "xy")])


def test_named_suites_of_words_and_sums(monkeypatch):
    """Each answer follows from its prompt by the rule that the suite is about; no word is both shown and asked."""
    texts = ["a film with many good words in it and more good words", "words that are many"]
    reviews = types.SimpleNamespace(load=lambda quiet: {"train": [(text, "positive") for text in texts]})
    monkeypatch.setitem(suites.EXAMPLE_SETS, "reviews", reviews)
    kept = {word for text in texts for word in text.split() if len(word) >= 4}
    rules = {
        "spelling": lambda given, answer: answer == " ".join(given),
        "reversed-words": lambda given, answer: given == answer[::-1],
        "cycled-letters": lambda given, answer: given != answer and given in answer + answer,
    }
    for name, rule in rules.items():
        rows = load_suite(name)
        assert {row.place for row in rows} == kept and len(rows) == len(kept)
        assert {row.split for row in rows} == {"train", "test"}
        for row in rows:
            assert rule(row.prompt.split("\n")[0].split(": ")[1], row.answers[0]), row
    plain, written = load_suite("sums"), load_suite("sums-scratchpad")
    assert len({row.prompt for row in plain}) == len(plain) == len(written)
    for row, worked in zip(plain, written, strict=True):
        a, b = map(int, row.prompt.rstrip("=").split("+"))
        assert row.answers == worked.answers == (str(a + b),) and row.worked is None
        assert answer_of(worked.worked) == str(a + b) and scratchpads_of(worked.worked) == [steps_of_sum(a, b)]
        assert row.group == worked.group == f"{len(str(a))} digit" + "s" * (a > 9)


def test_translations_are_short_phrases_with_all_their_translations(monkeypatch):
    rows = [("Font", "Police"), ("Font", "Fonte"), ("Press F1.", "Appuyez"), ("one two three four five", "un")]
    both = types.SimpleNamespace(load=lambda quiet: {"train": [("Line", "Ligne")], "test": rows})
    monkeypatch.setitem(suites.EXAMPLE_SETS, "en-fr", both)
    shown, asked = load_suite("translation")
    assert (shown.shown, shown.split) == ("English: Line\nFrench: Ligne", "train")
    assert (asked.prompt, asked.answers, asked.split) == ("English: Font\nFrench:", ("Police", "Fonte"), "test")


def test_chrf_is_sacrebleus():
    pytest.importorskip("sacrebleu")
    rows = [question({"prompt": "a", "answer": text}) for text in ("Couleur de police", "Ligne")]
    answers = [matched(row, text) for row, text in zip(rows, (" Couleur du texte", "Ligne"), strict=True)]
    found = chrf_of(answers)
    from sacrebleu import corpus_chrf

    expected = corpus_chrf(["Couleur du texte", "Ligne"], [["Couleur de police", "Ligne"]]).score
    assert found.score == pytest.approx(expected) and 0 < found.interval < 100


def test_the_command_asks_with_several_numbers_of_examples_and_draws(glassformer, folder, tmp_path):
    path, plot, out = tmp_path / "q.jsonl", tmp_path / "q.svg", tmp_path / "out.jsonl"
    rows = [{"prompt": f"Bees {n}", "answer": "honey", "group": "ab"[n % 2]} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", folder, "--suite", path, "-n", 2, "--chrf"]
    found = json.loads(glassformer(*words, "--shots", "0,1", "--plot", plot, "--out", out, "--json").out)
    assert [(row["shots"], row["exact_match"]["n"]) for row in found] == [(0, 3), (1, 3)]
    assert all(word in plot.read_text() for word in ("Accuracy by examples", "chrF by examples"))
    assert len(out.read_text().splitlines()) == 6
    assert glassformer(*words).out.count("exact_match") == 3  # all, and each group
    assert "chrF" in glassformer(*words, "--shots", "0,1").out


@pytest.mark.parametrize("shots", ["x", "1,1", "-1", "1,"])
def test_shots_are_numbers(refused, folder, suite, shots):
    refused("evaluate", folder, "--suite", suite, "--shots", shots, code=2, names=[shots, "0,1,2,4"])
