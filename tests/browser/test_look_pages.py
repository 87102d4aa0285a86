"""Pages of `glassformer look --html` in a real browser: nothing is cut off."""

from __future__ import annotations

import pytest
from toys import toy_model

from glassformer.inspection import attention
from glassformer.processors.tokenizers import build_tokenizer

DRAWN = "document.querySelector('.gf-figures').shadowRoot.querySelectorAll"
WORDS = "the understanding of internationalisation goes beyond mere translation of unbelievable words"


@pytest.mark.parametrize("width", [1000, 1280])
def test_every_head_of_a_column_is_on_the_page(browser, width):
    """The table of heads has five columns, four of them with bars; the last one's head was cut off."""
    tokenizer = build_tokenizer("words", [WORDS])
    view = attention(toy_model(vocab_size=tokenizer.vocab_size), tokenizer, WORDS)
    page = browser.new_page(viewport={"width": width, "height": 800})
    try:
        page.set_content(view.to_html())
        edges = page.evaluate(
            f"[...{DRAWN}('th, svg text')].map(e => [e.textContent, e.getBoundingClientRect().right])"
        )
        assert {"entropy", "understanding"} <= {text for text, _ in edges}
        assert max(right for _, right in edges) <= width
        bars = page.evaluate(f"[...{DRAWN}('.bar-track')].map(bar => bar.getBoundingClientRect().width)")
        assert min(bars) >= 32
    finally:
        page.close()
