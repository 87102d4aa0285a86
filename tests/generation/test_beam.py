"""Beam search: against its readable twin, against all answers that there are, and against transformers' own."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from beam_twin import beam_search_twin
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from translators import END, START, sources, translator

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation import Hypothesis, beam_search
from glassformer.generation.beam import length_penalty_of
from glassformer.layers import KVCache

KINDS = ["original", "modern", "seq2seq", "seq2seq-attention"]
LENGTHS = (5, 7, 1, 3, 11)


def twins(model, lengths=LENGTHS, *, seed=0, limit=None, **settings) -> list[list[Hypothesis]]:
    source_BS, lengths_B = sources(*lengths, seed=seed)
    return [
        beam_search_twin(model, row[:n].tolist(), limit=min(limit or n + 50, model.config.block_size), **settings)
        for row, n in zip(source_BS, lengths_B.tolist(), strict=True)
    ]


def same(ours: list[list[Hypothesis]], theirs: list[list[Hypothesis]]) -> None:
    assert [[h.tokens for h in best] for best in ours] == [[h.tokens for h in best] for best in theirs]
    for mine, yours in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert mine.log_probability == pytest.approx(yours.log_probability, rel=1e-5, abs=1e-4)
        assert mine.score == pytest.approx(yours.score, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("beam", "n_best", "alpha"), [(1, 1, 0.6), (2, 2, 0.0), (3, 1, 0.6), (5, 4, 1.3), (11, 7, 0.6)]
)
def test_a_batch_with_cache_gives_what_the_twin_gives_sentence_by_sentence(kind, beam, n_best, alpha):
    """5 sentences of unequal length. The twin knows no early stop: that ours stops changes nothing."""
    model = translator(kind, seed=beam)
    settings = {"beam": beam, "length_penalty": alpha, "n_best": n_best}
    ours = beam_search(model, *sources(*LENGTHS), max_new_tokens=7, **settings)
    same(ours, twins(model, limit=7, **settings))
    assert len({tuple(h.tokens for h in best) for best in ours}) >= 2  # the source decides


@pytest.mark.parametrize("patience", [1.0, 2.5, math.inf])
def test_the_twin_is_as_patient(patience):
    model = translator(seed=3)
    ours = beam_search(model, *sources(*LENGTHS), beam=3, n_best=3, patience=patience, max_new_tokens=7)
    same(ours, twins(model, beam=3, n_best=3, patience=patience, limit=7))


def test_answers_may_be_50_tokens_longer_than_their_source_and_no_longer_than_the_table():
    """A model that never wants to end: 1 + 50, 3 + 50 and, of 11 + 50, the 59 that there are places for."""
    model = translator(end=-50.0, block_size=59)
    (one,), (three,), (eleven,) = beam_search(model, *sources(1, 3, 11), beam=2)
    assert [len(h.tokens) for h in (one, three, eleven)] == [51, 53, 59]
    same([[one], [three], [eleven]], twins(model, (1, 3, 11), beam=2))
    assert one.tokens[-1] == END and one.log_probability < -40  # it pays for the end that it was made to say


def test_a_full_beam_finds_the_best_of_all_answers():
    """4 tokens, at most 4 to an answer: 1 + 3 + 9 + 27 = 40 answers, all of them scored here at once."""
    for seed, alpha in itertools.product(range(3), (0.0, 0.6, 2.0)):
        model = translator(vocab_size=4, seed=seed, end=0.0)
        source_BS, lengths_B = sources(7, seed=seed)
        scored = {}
        for n in range(4):
            said_BT = torch.tensor([(START, *text) for text in itertools.product((0, 1, 2), repeat=n)])  # 3 is END
            out_BT = torch.nn.functional.pad(said_BT[:, 1:], (0, 1), value=END)
            many = (t.repeat_interleave(len(said_BT), dim=0) for t in (source_BS, lengths_B))
            logp_BTV = model.decode(said_BT, model.encode(*many)).log_softmax(dim=-1)
            logp_B = logp_BTV.gather(2, out_BT[..., None]).sum(dim=(1, 2))
            for text, logp in zip(out_BT.tolist(), logp_B.tolist(), strict=True):
                scored[tuple(text)] = logp / length_penalty_of(n + 1, alpha)
        assert len(scored) == 40
        best = sorted(scored, key=lambda tokens: -scored[tokens])
        (found,) = beam_search(
            model, source_BS, lengths_B, beam=4**4, n_best=40, length_penalty=alpha, max_new_tokens=4
        )
        assert [h.tokens for h in found] == best
        assert [h.score for h in found] == pytest.approx([scored[tokens] for tokens in best], abs=1e-4)
        ((first,),) = beam_search(model, source_BS, lengths_B, beam=4**4, length_penalty=alpha, max_new_tokens=4)
        assert first.tokens == best[0]  # with only one wanted it may stop early, and still has the best


def test_a_beam_of_one_is_greedy():
    for seed in range(5):
        model = translator(seed=seed)
        source_BS, lengths_B = sources(5, seed=seed)
        text = [START]
        while text[-1] != END and len(text) <= 17:
            text.append(model(source_BS, torch.tensor([text]), lengths_B)[0, -1].argmax().item())
        ((found,),) = beam_search(model, source_BS, lengths_B, beam=1, max_new_tokens=17)
        assert list(found.tokens[:-1]) == (text[1:-1] if text[-1] == END else text[1:17])


def test_it_stops_as_soon_as_nothing_better_can_come(monkeypatch):
    """A sure model: the answer of 2 tokens is nearly certain, and no open hypothesis can be what it is."""
    model = translator(end=30.0)
    steps = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *a, **k: steps.append(a[0].shape[0]) or decode(*a, **k))
    beam_search(model, *sources(5, 7), beam=4, patience=math.inf)
    assert steps == [2]
    steps.clear()
    beam_search(model, *sources(5, 7), beam=4, n_best=3, patience=math.inf)  # more are wanted: it goes on
    assert 2 <= len(steps) < 31


def test_sentences_that_are_done_leave_the_batch(monkeypatch):
    model = translator(end=3.0, seed=1)
    rows = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *a, **k: rows.append(a[0].shape[0]) or decode(*a, **k))
    many = sources(*range(1, 18), seed=5)
    found = beam_search(model, *many, beam=2)
    assert rows[0] == 17 and rows[-1] < 17 and sorted(rows[1:], reverse=True) == rows[1:]
    monkeypatch.undo()
    alone = [beam_search(model, many[0][b : b + 1], many[1][b : b + 1], beam=2)[0] for b in range(17)]
    same(found, alone)


@pytest.mark.parametrize("planted", ["not reordered", "wrong order", "memory left behind"])
def test_a_planted_bug_is_noticed(planted, monkeypatch):
    """The tests above notice a cache that stays behind when hypotheses change places."""
    from glassformer.generation import beam

    if planted == "memory left behind":  # when sentences leave the batch
        right = beam.memory_rows
        monkeypatch.setattr(beam, "memory_rows", lambda memory, rows: right(memory, torch.arange(len(rows)) // 3))
    else:
        right = KVCache.reorder

        def wrong(self, rows):
            if len(rows) != len(self.tokens):
                right(self, rows)
            elif planted == "wrong order":
                right(self, rows.flip(0))

        monkeypatch.setattr(KVCache, "reorder", wrong)
    model = translator("seq2seq-attention" if planted == "memory left behind" else "modern", seed=5)
    settings = {"beam": 3, "n_best": 3}
    ours = beam_search(model, *sources(*LENGTHS), max_new_tokens=9, **settings)
    theirs = twins(model, limit=9, **settings)
    with pytest.raises(AssertionError):
        same(ours, theirs)
    monkeypatch.undo()
    same(beam_search(model, *sources(*LENGTHS), max_new_tokens=9, **settings), theirs)


class Bart:
    """A Bart of transformers with the calls of our models. Its cache only keeps what each row has read."""

    class Read:
        def __init__(self) -> None:
            self.ids_RT = None

        def reorder(self, rows: torch.Tensor) -> None:
            self.ids_RT = self.ids_RT[rows]

    class Memory(NamedTuple):
        vectors_BSC: torch.Tensor
        mask_BS: torch.Tensor

    def __init__(self, seed: int):
        torch.manual_seed(seed)
        wide = {"d_model": 14, "vocab_size": 19, "max_position_embeddings": 61, "init_std": 0.4, "dropout": 0.0}
        layers = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
        ids = {"pad_token_id": 0, "bos_token_id": START, "decoder_start_token_id": START, "eos_token_id": END}
        self.their = BartForConditionalGeneration(BartConfig(**wide, **layers, **ids, forced_eos_token_id=None)).eval()
        self.their.final_logits_bias[0, END] = 3.0  # answers that end by themselves
        self.config = SimpleNamespace(block_size=61, start_token=START, end_token=END)
        self.training = False

    def train(self, mode: bool = True) -> None:
        pass

    def encode(self, source, lengths_B):
        mask = torch.arange(source.shape[1]) < lengths_B[:, None]
        return self.Memory(self.their.get_encoder()(source, attention_mask=mask).last_hidden_state, mask)

    def new_cache(self, batch_size=1, capacity=None):
        return self.Read()

    def decode(self, target, memory, *, cache=None):
        if cache is not None:
            cache.ids_RT = target if cache.ids_RT is None else torch.cat((cache.ids_RT, target), dim=1)
            target = cache.ids_RT
        encoded = BaseModelOutput(memory.vectors_BSC)
        return self.their(
            encoder_outputs=encoded, attention_mask=memory.mask_BS, decoder_input_ids=target, use_cache=False
        ).logits


@pytest.mark.parametrize(("patience", "early_stopping"), [(1.0, True), (math.inf, "never")])
def test_it_finds_what_transformers_finds(patience, early_stopping):
    """Compared are sentences whose four best all end by themselves: at the limit they do not charge for the end."""
    seen = {-0.5: 0, 0.0: 0, 1.0: 0}
    for alpha, seed in itertools.product(seen, range(2)):
        bart, (source_BS, lengths_B) = Bart(seed), sources(*LENGTHS, seed=seed)
        theirs = bart.their.generate(
            source_BS,
            attention_mask=torch.arange(source_BS.shape[1]) < lengths_B[:, None],
            num_beams=4,
            num_return_sequences=4,
            length_penalty=alpha,
            early_stopping=early_stopping,
            max_length=15,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        ours = beam_search(
            bart,
            source_BS,
            lengths_B,
            n_best=4,
            length_penalty=alpha,
            penalty_kind="power",
            patience=patience,
            max_new_tokens=14,
        )
        text, scores = theirs.sequences[:, 1:].tolist(), theirs.sequences_scores.tolist()
        for b, best in enumerate(ours):
            rows = text[4 * b : 4 * b + 4]
            if all(END in row[:-1] for row in rows):
                seen[alpha] += 1
                assert [list(h.tokens) for h in best] == [row[: row.index(END) + 1] for row in rows]
                assert [h.score for h in best] == pytest.approx(scores[4 * b : 4 * b + 4], abs=1e-4)
    assert min(seen.values()) >= 3, seen


@pytest.mark.parametrize("training", [True, False])
def test_it_searches_without_dropout_and_puts_the_mode_back(training):
    model = translator()
    still = beam_search(model, *sources(5, 7))
    model.set_dropout(0.5)
    model.train(training)
    same(beam_search(model, *sources(5, 7)), still)
    assert {module.training for module in model.modules()} == {training}


def test_no_sentences_no_answers():
    assert beam_search(translator(), torch.zeros(0, 5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)) == []


def test_logits_that_are_no_numbers_are_one_line():
    model = translator()
    with torch.no_grad():
        model.decoder.head.bias.fill_(math.nan)
    with pytest.raises(DivergenceError, match=r"^the model's logits are no numbers \(NaN\); take an earlier checkp"):
        beam_search(model, *sources(5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, "beam=0 is out of range; use 1 (greedy) or more"),
        ({"length_penalty": -0.5}, "length_penalty=-0.5 is out of range; use 0 (none) or more; 0.6 is usual"),
        ({"length_penalty": math.nan}, "length_penalty=nan is out of range; use 0 (none) or more; 0.6 is usual"),
        ({"n_best": 5}, "n_best=5 is out of range; use 1 to beam=4: no more are kept"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is out of range; use 1 or more"),
        ({"patience": 0.5}, "patience=0.5 is out of range; use 1 or more"),
    ],
)
def test_a_setting_out_of_range_is_one_line(settings, message):
    with pytest.raises(UsageError) as error:
        beam_search(translator(), *sources(5), **settings)
    assert str(error.value) == message
