"""sampling.js against generation/filters.py: the same probabilities, the same tokens cut, each by the same filter."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from glassformer.generation import Sampling, filtered_probabilities

RUN = """async cases => {
    const { entropy, filtered, ranking, softmax } = await import("/web/sampling.js");
    return cases.map(({ logits, settings }) => {
        logits = Float32Array.from(logits);
        const order = ranking(logits);
        const drawn = settings.map(one => {
            const { probabilities, reasons } = filtered(logits, order, one);
            return { probabilities: [...probabilities], reasons: [...reasons], entropy: entropy(probabilities) };
        });
        return { own: [...softmax(logits)], order: [...order], drawn };
    });
}"""
SETTINGS = [
    {"temperature": t, "topK": k, "topP": p, "minP": m}
    for t, k, p, m in itertools.product((0, 1e-9, 0.7, 1, 3), (0, 5, 1000), (0.35, 0.9, 1), (0, 0.03))
]
STEPS = ("temperature", "topK", "topP", "minP")


def some_logits() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(8)
    flat = torch.randn(31, generator=g)
    steep = 6 * torch.randn(301, generator=g)
    ties = (2 * torch.randn(97, generator=g)).round() / 2  # many are equal
    return [flat, steep, ties, torch.zeros(7), torch.cat((steep, torch.tensor([-torch.inf])))]


def sampling(settings: dict, *upto: str) -> Sampling:
    names = {"temperature": "temperature", "topK": "top_k", "topP": "top_p", "minP": "min_p"}
    return Sampling(**{names[name]: value for name, value in settings.items() if name in upto})


def test_probabilities_and_reasons_equal_torchs(tab, url):
    tab.goto(url)
    cases = some_logits()
    finite = [case.clamp(min=-3.4e38).tolist() for case in cases]  # JSON knows no infinity
    got = tab.evaluate(RUN, [{"logits": case, "settings": SETTINGS} for case in finite])
    for logits, shown in zip(cases, got, strict=True):
        own = torch.tensor(shown["own"], dtype=torch.float32)
        torch.testing.assert_close(own, logits.softmax(dim=-1), atol=1e-6, rtol=1e-5)
        assert shown["order"] == logits.sort(descending=True, stable=True).indices.tolist()
        for settings, row in zip(SETTINGS, shown["drawn"], strict=True):
            stages = [filtered_probabilities(logits[None], sampling(settings, *STEPS[: n + 1]))[0] for n in range(4)]
            sampled_V = torch.tensor(row["probabilities"], dtype=torch.float32)
            torch.testing.assert_close(sampled_V, stages[-1], atol=1e-5, rtol=1e-5)
            assert row["entropy"] == pytest.approx(bits(stages[-1]), abs=1e-4)
            reasons = torch.tensor(row["reasons"])
            assert (sampled_V[reasons > 0] == 0).all()
            if settings["temperature"] == 0:
                assert reasons.tolist() == torch.where(stages[0] > 0, 0, 4).tolist()
                continue
            for number in (1, 2, 3):  # what a filter cuts is what it makes 0, as far as it was a number before
                cut = (stages[number] == 0) & (stages[number - 1] > 0)
                assert (reasons[cut] == number).all() and not (reasons[stages[-1] > 0] > 0).any(), settings


def bits(p: torch.Tensor) -> float:
    return float(torch.special.entr(p.double()).sum()) / math.log(2)
