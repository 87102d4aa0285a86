"""What the tests do with the page, in a user's words."""

from __future__ import annotations

import math
import time
import urllib.request
from typing import Any

import pytest
import torch
from playwright.sync_api import expect
from served import pieces_of

from glassformer.generation import Sampling, filtered_probabilities

expect.set_options(timeout=20_000)  # of a machine with other work to do
PROMPT = "the quick brown"
OFF = {"temperature": 1, "topK": 0, "topP": 1, "minP": 0}


def opened(tab: Any, url: str, **sampling: float) -> Any:
    """The page, ready, with these sliders; the others change nothing."""
    tab.goto(url)
    wait_for_state(tab, "idle")
    for name, value in (OFF | sampling).items():
        tab.fill(f"#{name}-number", str(value))
    return tab


def wait_for_state(tab: Any, state: str) -> None:
    expect(tab.locator("#status")).to_have_attribute("data-state", state)


def write(tab: Any, prompt: str, tokens: int = 12, seed: int = 1) -> None:
    tab.fill("#prompt", prompt)
    tab.fill("#max-tokens", str(tokens))
    tab.fill("#seed", str(seed))
    tab.click("#write")


def written(tab: Any, prompt: str, tokens: int = 12, seed: int = 1) -> list[int]:
    """Write and wait; the ids on the screen, the prompt's among them."""
    write(tab, prompt, tokens, seed)
    wait_for_state(tab, "done")
    return ids_of(tab)


def ids_of(tab: Any) -> list[int]:
    return tab.eval_on_selector_all("#tokens [data-id]", "all => all.map(one => Number(one.dataset.id))")


def look(tab: Any, index: int) -> dict[str, float]:
    """Click the token at `index`; the numbers on the screen."""
    tab.click(f'#tokens [data-index="{index}"]')
    expect(tab.locator(f'#distribution [data-source="entropy/{index - 1}"]')).to_be_visible()
    return shown(tab)


def shown(tab: Any, within: str = "#distribution") -> dict[str, float]:
    """Every number on the screen by its data-source."""
    pairs = tab.eval_on_selector_all(
        f"{within} [data-source]", "all => all.map(one => [one.dataset.source, Number(one.dataset.value)])"
    )
    assert pairs
    return dict(pairs)


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    """(T, V), by the model alone."""
    with torch.no_grad():
        return model(torch.tensor([ids]))[0].float()


def bits(p: torch.Tensor) -> float:
    return float(torch.special.entr(p.double()).sum() / torch.log(torch.tensor(2.0, dtype=torch.float64)))


def generated(model, tokenizer, ids: list[int], n: int, **sampling) -> list[int]:
    return [piece.token for piece in pieces_of((model, tokenizer), ids, n, **sampling)]


def check(numbers: dict[str, float], logits_V: torch.Tensor, p: int, came: int | None, **sampling) -> None:
    """Every number of a position, against torch."""
    own, sampled = logits_V.softmax(-1), filtered_probabilities(logits_V[None], Sampling(**sampling))[0]
    rank = {int(i): r for r, i in enumerate(logits_V.sort(descending=True, stable=True).indices, 1)}
    rows = [int(source.split("/")[2]) for source in numbers if source.startswith("logits/")]
    wanted = {
        f"entropy/{p}": bits(own), f"entropy-sampled/{p}": bits(sampled), f"vocabulary/{p}": len(own),
        f"kept/{p}": int((sampled > 0).sum()), f"others/{p}": len(own) - len(rows),
        f"probability/{p}/others": 1 - float(own[rows].sum()), f"sampling/{p}/others": 1 - float(sampled[rows].sum()),
    }  # fmt: skip
    for i in rows:
        wanted |= {f"logits/{p}/{i}": float(logits_V[i]), f"rank/{p}/{i}": rank[i]}
        wanted |= {f"probability/{p}/{i}": float(own[i]), f"sampling/{p}/{i}": float(sampled[i])}
    if came is not None:
        wanted[f"surprise/{p}/{came}"] = -math.log2(own[came])
        if sampled[came]:
            line = sampled.double().cumsum(0)
            wanted |= {f"from/{p}/{came}": float(line[came] - sampled[came]), f"to/{p}/{came}": float(line[came])}
    wanted |= decided_by(own, logits_V, p, **sampling)
    numbers = {source: value for source, value in numbers.items() if source != f"u/{p}"}
    cuts = {source: value for source, value in numbers.items() if source.startswith("cut/")}
    assert sum(cuts.values()) == len(own) - wanted[f"kept/{p}"]
    exact = {source: value for source, value in numbers.items() if source not in cuts}
    assert exact == pytest.approx(wanted, abs=1e-5)
    for kind in ("probability", "sampling"):  # which fp32 holds to 1e-7
        some = {source: value for source, value in wanted.items() if source.startswith(f"{kind}/")}
        assert {source: exact[source] for source in some} == pytest.approx(some, abs=1e-6)
    for kind in ("probability", "sampling"):
        assert sum(v for source, v in numbers.items() if source.startswith(f"{kind}/")) == pytest.approx(1, abs=1e-9)


def decided_by(own: torch.Tensor, logits_V: torch.Tensor, p: int, **sampling) -> dict[str, float]:
    """The numbers that decide what is cut, where they are on the screen."""
    if sampling.get("temperature") == 0:
        return {f"ties/{p}": int((logits_V == logits_V.max()).sum())}
    found = {f"limit/{p}": 1 / min(len(own), sampling.get("top_k") or len(own))}
    before = filtered_probabilities(logits_V[None], Sampling(**sampling | {"top_p": 1.0, "min_p": 0.0}))[0]
    kept = filtered_probabilities(logits_V[None], Sampling(**sampling | {"min_p": 0.0}))[0] > 0
    least = sampling.get("min_p", 0) * before.max()
    return found | ({f"least/{p}": float(least)} if (kept & (before < least)).any() else {})


def freed(tab, url: str) -> bool:
    """Whether no row is active, long before the end of the text."""
    until = time.monotonic() + 6
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            if 'glassformer_rows_active{model="base"} 0.0' in answer.read().decode():
                return True
        tab.wait_for_timeout(50)
    return False
