"""nanoGPT's CPU recipe in full: our plain path equals the peer's. About a minute and a half on two cores."""

from __future__ import annotations

import pytest

from glassformer import recipes


@pytest.mark.slow
def test_shakespeare_char_cpu_reaches_nanogpts_loss(shakespeare, tmp_path):
    run = recipes.train("shakespeare-char-cpu", out=tmp_path / "run")
    assert run.parameters == 804_096
    assert run.loss.n == 111_539  # every target of the validation split
    assert run.loss.loss == pytest.approx(1.898, abs=0.03)
