"""What all tests share: one thread, this folder's stand-ins on the import path, a cache of their own, a small text.

Two test runs side by side with two threads each take many times as long as with one, and at toy size one is as fast.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
from play import PLAY
from skips import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]  # a hook: pytest finds it here

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("command_line")  # a failure in there shows both sides


def pytest_addoption(parser):
    shown = "what training.precision=auto takes on a CPU, as on a machine with bf16 or without"
    parser.addoption("--precision", choices=("fp32", "bf16"), help=shown)


@pytest.fixture(autouse=True, scope="session")
def forced_precision(request):
    """`--precision`, in this process."""
    asked = request.config.getoption("--precision")
    with pytest.MonkeyPatch.context() as patch:
        if asked is not None:
            from glassformer.training import devices

            patch.setattr(devices, "_cpu_multiplies_bf16", lambda: asked == "bf16")
        yield


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Downloads and token stores of the tests go into a folder that is theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_plugins():
    """A plug-in that one test names is not recorded in the models that later tests of this process save."""
    from glassformer import plugins

    asked = list(plugins._asked)
    yield
    plugins._asked[:] = asked


@pytest.fixture
def torch_warnings():
    """`torch_warnings()`: what PyTorch has warned of during this test.

    Of most things it warns once a process, and would be silent here if another test had met them: so each time."""
    import torch

    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield lambda: [
            str(w.message) for w in seen if "/torch/" in w.filename or "Triggered internally" in str(w.message)
        ]
    torch.set_warn_always(before)


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """`play.py` as a text file."""
    path = tmp_path / "play.txt"
    path.write_text(PLAY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shakespeare(own_cache) -> Path:
    """Tiny Shakespeare as a text file."""
    from glassformer.data import CORPORA

    return CORPORA["tinyshakespeare"].file()
