"""What the tests do with the page, in a user's words."""

from __future__ import annotations

from typing import Any

import torch
from playwright.sync_api import expect

expect.set_options(timeout=20_000)  # of a machine with other work to do
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
