"""What taps cost while nobody listens: generation and training with them and without.

    python benchmarks/taps.py [--rounds 15]

Prints JSON. Both sides are one model in one process: a tap's call `self.tap_x(y)` is cut out of the source of every
layer, so that `y` is left, and the two versions of the methods take turns, round after round. Told are the medians of
the time a step and the median over rounds of the ratio. The goal is 1 % at most.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
from torch import nn

from glassformer.models import Decoder, ModelConfig
from glassformer.taps import Tap
from glassformer.threads import set_threads

Method = tuple[type, str, Callable[..., Any], Callable[..., Any]]


class _Untapped(ast.NodeTransformer):
    """`self.tap_x(y)` becomes `y`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = isinstance(node.func, ast.Attribute) and node.func.attr.startswith("tap_")
        return node.args[0] if named else node


def tapped_methods(model: nn.Module) -> list[Method]:
    """Every method of the model's layers that calls a tap: its class, its name, as it is and without taps."""
    found: dict[tuple[type, str], Method] = {}
    for module in model.modules():
        if not any(isinstance(value, Tap) for value in vars(module).values()):
            continue
        for owner in type(module).__mro__:
            if not owner.__module__.startswith("glassformer"):
                continue
            for name, method in vars(owner).items():
                if not inspect.isfunction(method):
                    continue
                source = textwrap.dedent(inspect.getsource(method))
                if "self.tap_" not in source or name == "__init__":
                    continue
                tree = ast.fix_missing_locations(_Untapped().visit(ast.parse(source)))
                scope: dict[str, Any] = {}
                exec(compile(tree, owner.__module__, "exec"), vars(sys.modules[owner.__module__]), scope)
                found[owner, name] = (owner, name, method, scope[name])
    return list(found.values())


def switch(methods: list[Method], taps: bool) -> None:
    for owner, name, tapped, untapped in methods:
        setattr(owner, name, tapped if taps else untapped)


def decoding(model: Decoder, n: int) -> Callable[[], None]:
    """n tokens, one at a time, with a cache."""

    def work() -> None:
        with torch.inference_mode():
            cache = model.new_cache()
            ids = torch.zeros(1, 1, dtype=torch.int64)
            for _ in range(n):
                ids = model(ids, cache=cache)[:, -1:].argmax(dim=-1)

    return work


def training(model: Decoder, B: int, T: int, n: int) -> Callable[[], None]:
    """n steps, forward and backward and plain descent."""
    ids = torch.randint(65, (B, T))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def work() -> None:
        for _ in range(n):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
            optimizer.step()

    return work


def measure(model: Decoder, work: Callable[[], None], n: int, rounds: int) -> dict[str, float]:
    methods, seconds = tapped_methods(model), {True: [], False: []}
    try:
        for round_ in range(rounds + 1):
            for taps in (True, False) if round_ % 2 else (False, True):
                switch(methods, taps)
                started = time.perf_counter()
                work()
                if round_:  # the first one warms up
                    seconds[taps].append((time.perf_counter() - started) / n)
    finally:
        switch(methods, True)
    ratio = statistics.median(a / b for a, b in zip(seconds[True], seconds[False], strict=True))
    return {
        "with_taps_ms": round(1000 * statistics.median(seconds[True]), 3),
        "without_ms": round(1000 * statistics.median(seconds[False]), 3),
        "cost_percent": round(100 * (ratio - 1), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    set_threads()
    shown = {}
    for name, shape in (
        ("0.8M", {"n_layer": 4, "n_head": 4, "n_embd": 128}),
        ("10.7M", {"n_layer": 6, "n_head": 6, "n_embd": 384}),
    ):
        model = Decoder(ModelConfig.make(vocab_size=65, block_size=256, **shape))
        n = 200 if name == "0.8M" else 60
        shown[f"generation {name}"] = measure(model.eval(), decoding(model, n), n, rounds)
        B, T, steps = (12, 64, 8) if name == "0.8M" else (2, 256, 1)
        shown[f"training {name}"] = measure(model.train(), training(model, B, T, steps), steps, rounds)
    print(json.dumps({"threads": torch.get_num_threads(), "rounds": rounds, **shown}, indent=2))


if __name__ == "__main__":
    main()
