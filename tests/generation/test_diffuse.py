"""Writing by diffusion: what is given stays, gaps are filled whole, orders, revision, blocks, seeds; the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from command_line import glassformer, refused
from toys import shaken

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation import Sampling, diffuse
from glassformer.generation.diffusion import gapped_ids
from glassformer.hub import save
from glassformer.inspection import diffusion
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.processors.tokenizers.special_tokens import MASK

__all__ = ["glassformer", "refused"]
LETTERS = "abcdefgh .\n[]"
SHAPE = {"vocab_size": len(LETTERS) + 1, "block_size": 12, "n_layer": 1, "n_head": 2, "n_embd": 12, "n_hidden": 16}
TOKENIZER = TOKENIZERS["characters"]([LETTERS], specials=(MASK,))
HIDDEN_ID = TOKENIZER.special_tokens[MASK]


@pytest.fixture(scope="module")
def model():
    config = EncoderConfig.make(family="modern", **SHAPE, token_head="vocabulary", tied_head=False)
    return shaken(Encoder(config)).eval()


class Favourite(torch.nn.Module):
    """Expects of place i the letter of number i mod 8; it is surer of it the further right."""

    reads = "text"

    def __init__(self, block_size: int = 12):
        super().__init__()
        self.config = EncoderConfig.make(**{**SHAPE, "block_size": block_size}, token_head="vocabulary")
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def forward(self, ids_BT):
        self.seen.append(ids_BT[0].tolist())
        return torch.arange(ids_BT.shape[1]).expand(ids_BT.shape)

    def token_logits(self, places):
        wanted = torch.tensor(TOKENIZER.encode("abcdefgh"))[places % 8]
        return torch.nn.functional.one_hot(wanted, SHAPE["vocab_size"]) * (1 + places[:, None]).float()


def written(model, text: str = "", **settings):
    return list(diffuse(model, TOKENIZER, text, **settings))


def test_what_is_given_stays_and_every_gap_is_filled(model):
    drafts = written(model, "a<mask:3>b<mask>.", sampling=Sampling(seed=1))
    assert [len(d.written) for d in drafts] == [1] * 4 and [d.step for d in drafts] == [1, 2, 3, 4]
    for draft, left in zip(drafts, (3, 2, 1, 0), strict=True):
        assert len(draft.hidden) == left == draft.text.count("▒")
        assert (draft.text[0], draft.text[4], draft.text[6]) == ("a", "b", ".")
    assert HIDDEN_ID not in drafts[-1].ids and len(drafts[-1].text) == 7
    for earlier, later in pairwise(drafts):
        assert all(earlier.ids[i] == later.ids[i] for i in range(7) if i not in earlier.hidden)


def test_a_text_without_gaps_is_continued():
    assert gapped_ids(TOKENIZER, "ab", HIDDEN_ID, 3) == [*TOKENIZER.encode("ab"), *[HIDDEN_ID] * 3]
    assert gapped_ids(TOKENIZER, "", HIDDEN_ID) == [HIDDEN_ID] * 200
    assert gapped_ids(TOKENIZER, "a<mask:2>b<mask>", HIDDEN_ID) == [
        *TOKENIZER.encode("a"), HIDDEN_ID, HIDDEN_ID, *TOKENIZER.encode("b"), HIDDEN_ID
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3, 7, 50])
@pytest.mark.parametrize("order", ["random", "confidence"])
def test_the_number_of_steps_is_kept(model, steps: int, order: str):
    drafts = written(model, max_new_tokens=7, steps=steps, order=order)
    assert len(drafts) == steps == drafts[-1].steps and not drafts[-1].hidden
    assert sum(len(d.written) for d in drafts) == 7


def test_the_surest_first():
    drafts = written(Favourite(), max_new_tokens=8, steps=4, order="confidence", sampling=Sampling(temperature=0))
    assert [d.written for d in drafts] == [(6, 7), (4, 5), (2, 3), (0, 1)]
    assert drafts[-1].text == "abcdefgh"
    assert drafts[0].probability[0] < drafts[0].probability[1]


def test_random_order_is_random_and_seeds_are_kept(model):
    first, again, other = (written(model, max_new_tokens=9, sampling=Sampling(seed=s)) for s in (1, 1, 2))
    assert first == again and first != other
    assert [d.written for d in first] != sorted(d.written for d in first)


def test_one_token_a_step_samples_the_models_own_distribution(model):
    """One hidden token: 4,000 samples against its probabilities."""
    ids = torch.tensor([gapped_ids(TOKENIZER, "ab<mask>c", HIDDEN_ID)])
    with torch.no_grad():
        logits_V = model.token_logits(model(ids))[0, 2]
    logits_V[HIDDEN_ID] = -torch.inf
    p_V, n = logits_V.softmax(dim=-1), 4_000
    counts_V = torch.zeros(len(p_V))
    for seed in range(n):
        (draft,) = written(model, "ab<mask>c", sampling=Sampling(seed=seed))
        counts_V[draft.ids[2]] += 1
        assert draft.probability[0] == pytest.approx(p_V[draft.ids[2]].item(), abs=1e-5)
    assert (counts_V / n - p_V).abs().max() < 4 * 0.5 / n**0.5  # four standard errors


def test_temperature_and_top_k_are_applied(model):
    cold = {written(model, "ab<mask>c", sampling=Sampling(temperature=0, seed=s))[0].ids[2] for s in range(20)}
    two = {written(model, "ab<mask>c", sampling=Sampling(top_k=2, seed=s))[0].ids[2] for s in range(60)}
    assert len(cold) == 1 and len(two) == 2 and cold < two


def test_revision_hides_the_least_sure_again_and_ends_whole():
    drafts = written(Favourite(), max_new_tokens=8, steps=6, remask=0.4, sampling=Sampling(seed=3))
    assert not drafts[-1].hidden and not drafts[-1].erased and sum(len(d.erased) for d in drafts) > 2
    for before, draft in pairwise(drafts):
        there = [i for i in range(8) if i not in before.hidden]
        assert set(draft.erased) <= set(there) and list(draft.erased) == there[: len(draft.erased)]  # left: least sure
    assert sum(len(d.written) for d in drafts) == 8 + sum(len(d.erased) for d in drafts)


def test_a_long_text_is_written_in_blocks_from_left_to_right():
    model = Favourite(block_size=6)
    drafts = written(model, "ab", max_new_tokens=10, block=3, sampling=Sampling(temperature=0))
    order = [place for d in drafts for place in d.written]
    assert len(order) == 10 and all(max(order[i : i + 3]) < min(order[i + 3 :]) for i in (0, 3, 6))
    assert all(len(seen) == 6 for seen in model.seen)
    assert HIDDEN_ID not in model.seen[-1][:5]  # the last block sees what was written before it


def test_a_gap_in_a_long_text_is_read_on_both_sides():
    model = Favourite(block_size=6)
    (draft,) = written(model, "abcdefgh<mask>hgfedcba")
    assert model.seen[0] == [*TOKENIZER.encode("fgh"), HIDDEN_ID, *TOKENIZER.encode("hg")]
    assert draft.hidden == frozenset()


@pytest.mark.parametrize(
    ("text", "settings", "name"),
    [
        ("a<mask:0>", {}, "a gap of 0"),
        ("a<mask:999999999999>", {}, "a gap of"),
        ("a<mask>", {"max_new_tokens": 3}, "max_new_tokens"),
        ("a", {"max_new_tokens": 0}, "a gap of 0"),
        ("a", {"steps": 0}, "steps=0"),
        ("a", {"remask": 1.0}, "remask=1.0"),
        ("a", {"remask": float("nan")}, "remask=nan"),
        ("a", {"block": 13}, "block=13"),
        ("a", {"order": "best"}, "order=best"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(model, text, settings, name):
    with pytest.raises(UsageError, match=name) as error:
        written(model, text, **settings)
    assert "\n" not in str(error.value)


def test_models_that_are_damaged_or_of_another_kind(model):
    damaged = Favourite()
    damaged.token_logits = lambda places: torch.full((len(places), SHAPE["vocab_size"]), torch.nan)
    with pytest.raises(DivergenceError):
        written(damaged, "a")
    config = EncoderConfig.make(**SHAPE, n_classes=2)
    with pytest.raises(UsageError, match=r"task\.kind=diffusion"):
        written(Encoder(config), "a")


def test_the_view_says_which_step_wrote_what(model):
    view = diffusion(model, TOKENIZER, "a<mask:4>b", steps=2, seed=5)
    assert view.step[0] == view.step[-1] == 0 and sorted(view.step[1:-1]) == [1, 1, 2, 2]
    assert view.drafts[0].count("▒") == 2 and view.drafts[1].count("▒") == 0 and view.written == [2, 2]
    assert view.probability[0] != view.probability[0] and (view.probability[1:-1] > 0).all()
    assert "▒" in str(view) and view.to_html()


# ---- the command ----


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "model"
    save(path, model, TOKENIZER)
    return path


def test_the_command_writes_text_drafts_and_json(glassformer, folder):
    words = ["diffuse", folder, "-p", "a<mask:4>b", "--seed", "3"]
    text = glassformer(*words).out
    assert len(text) == 7 and text[0] == "a" and text[5] == "b"
    every = glassformer(*words, "--every", "2", "--steps", "4").out
    assert every.count("--- step") == 3 and "▒" in every and text.strip() in every
    (line,) = glassformer(*words, "--json").out.splitlines()
    found = json.loads(line)
    assert found["text"] + "\n" == text and len(found["steps"]) == 4 and found["seed"] == 3
    two = glassformer(*words, "--samples", "2", "--order", "confidence", "--remask", "0.2").out
    assert two.count("--- sample") == 2
    assert json.loads(glassformer("look", "diffusion", folder, "a<mask:4>b", "--steps", "2", "--json").out)[
        "written"
    ] == [2, 2]


def test_the_command_refuses_what_does_not_fit(refused, folder, tmp_path):
    refused("diffuse", folder, "-p", "a<mask:2>", "-n", "3", code=2, names=["max_new_tokens"])
    refused("diffuse", folder, "--order", "best", code=2, names=["order=best", "confidence"])
    refused("diffuse", folder, "--temperature", "-1", code=2, names=["temperature"])
    refused("generate", folder, "-p", "a", code=2, names=["glassformer fill"])


def test_in_a_terminal_the_drafts_follow_each_other(folder):
    """Brackets of a text are no markup."""
    pty = pytest.importorskip("pty", reason="needs a terminal")
    main, terminal = pty.openpty()
    words = [sys.executable, "-m", "glassformer", "diffuse", str(folder), "-p", "a[b]<mask:3>", "--seed", "1"]
    done = subprocess.Popen(
        words, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 1 << 16):
            shown += part
    except OSError:  # the terminal is closed
        pass
    assert done.communicate()[1] == b"" and done.returncode == 0
    assert "▒" in shown.decode() and shown.decode().count("a[b]") >= 2
