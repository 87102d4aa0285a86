"""Diffusion beside an autoregressive model of equal shape, batches and steps, on Tiny Shakespeare's characters.

    python benchmarks/diffusion.py [--steps 3000] [--diffusion RUN --autoregressive RUN]

Prints JSON. Both learn `shakespeare-diffusion`'s shape by its schedule, one as `task.kind=diffusion` (an encoder), one
as `next_token` (a decoder); runs or checkpoints that exist already may be given. Bits per character are of the whole
validation split in windows of block_size: a bound from above for diffusion, exact for the other, which is given one
character before each window.

`gaps`: in the middle of 400 windows, a gap of 1, 4 and 16 characters. Bits of a character in it, and the share that is
right when each model writes it greedily (diffusion: one character a step, the surest first). Diffusion reads both sides
of the gap, the other the left side alone, as it must. `left side alone`: diffusion with the right side hidden too.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
import torch
from torch import Tensor

from glassformer import recipes
from glassformer.evaluation.estimate import WindowLosses
from glassformer.generation import Sampling, diffuse
from glassformer.recipes.opening import open_run
from glassformer.tasks.held_out import spread_windows
from glassformer.threads import set_threads

RECIPE = "shakespeare-diffusion"
GAPS = (1, 4, 16)
LN2 = math.log(2)


def train(folder: Path, steps: int | None) -> dict[str, Path]:
    """Both models, one after the other."""
    words = [f"training.steps={steps}"] if steps else []
    found = {}
    for name, changes in (
        ("diffusion", []),
        ("autoregressive", ["model.kind=decoder", "task.kind=next_token"]),
    ):
        found[name] = recipes.train(RECIPE, [*words, *changes], out=folder / name).path
    return found


def gap(T: int, length: int) -> slice:
    return slice((T - length) // 2, (T - length) // 2 + length)


def bits(sums_N: Tensor, length: int) -> list[float]:
    """Bits of a character, and half the width of the 95 % interval."""
    mean = WindowLosses(sums_N.double(), torch.full((len(sums_N),), length), "").metrics()["loss"]
    return [round(mean.value / LN2, 3), round(mean.interval / LN2, 3)]


@torch.inference_mode()
def diffusion_bits(task: Any, model: Any, ids_NT: Tensor, length: int, right: bool) -> list[float]:
    """The bound of a gap: the mean over k = 1 ... length hidden characters of length / k times their losses."""
    random, place = np.random.default_rng(0), gap(ids_NT.shape[1], length)
    sums_N = torch.zeros(len(ids_NT))
    for k in range(1, length + 1):
        order = torch.from_numpy(random.random((len(ids_NT), length)).argsort(axis=1).argsort(axis=1) < k)
        shown_NT = ids_NT.clone()
        shown_NT[:, place] = shown_NT[:, place].masked_fill(order, task.mask_token)
        if not right:
            shown_NT[:, place.stop :] = task.mask_token
        losses_NT, _ = task.token_losses(model, shown_NT, ids_NT)
        sums_N += losses_NT[:, place].sum(dim=1) * length / k / length
    return bits(sums_N, length)


@torch.inference_mode()
def autoregressive_bits(model: Any, ids_NT: Tensor, length: int) -> list[float]:
    place = gap(ids_NT.shape[1], length)
    logp_NTV = model(ids_NT[:, :-1]).log_softmax(dim=-1)
    logp_NT = logp_NTV.gather(2, ids_NT[:, 1:, None]).squeeze(2)
    return bits(-logp_NT[:, place.start - 1 : place.stop - 1].sum(dim=1), length)


def diffusion_share(model: Any, tokenizer: Any, ids_NT: Tensor, length: int) -> float:
    place, right = gap(ids_NT.shape[1], length), 0
    for ids_T in ids_NT:
        before, after = (tokenizer.decode(part.tolist()) for part in (ids_T[: place.start], ids_T[place.stop :]))
        text = f"{before}<mask:{length}>{after}"
        (*_, draft) = diffuse(model, tokenizer, text, order="confidence", sampling=Sampling(temperature=0))
        right += int((torch.tensor(draft.ids)[place] == ids_T[place]).sum())
    return round(right / (len(ids_NT) * length), 3)


@torch.inference_mode()
def autoregressive_share(model: Any, ids_NT: Tensor, length: int) -> float:
    place = gap(ids_NT.shape[1], length)
    written_NT = ids_NT[:, : place.start]
    for _ in range(length):
        written_NT = torch.cat([written_NT, model(written_NT)[:, -1:].argmax(dim=-1)], dim=1)
    return round(float((written_NT[:, place] == ids_NT[:, place]).float().mean()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--windows", type=int, default=400, help="with a gap in their middle; default 400")
    parser.add_argument("--diffusion", type=Path, metavar="RUN")
    parser.add_argument("--autoregressive", type=Path, metavar="RUN")
    args = parser.parse_args()
    if (args.diffusion is None) != (args.autoregressive is None):
        parser.error("give both runs, or none")
    set_threads()
    with tempfile.TemporaryDirectory() as folder:
        given = {"diffusion": args.diffusion, "autoregressive": args.autoregressive}
        paths = given if args.diffusion else train(Path(folder), args.steps)
        opened = {name: open_run(path) for name, path in paths.items()}
        found: dict[str, Any] = {}
        for name, (model, task) in opened.items():
            started = time.perf_counter()
            metrics = task.evaluate(model.eval())
            loss = metrics["loss"]
            file = paths[name] / "summary.json"  # a checkpoint has none
            summary = json.loads(file.read_text()) if file.is_file() else {}
            found[name] = {
                "bits_per_character": [round(loss.value / LN2, 4), round(loss.interval / LN2, 4)],
                "characters": loss.n,
                "parameters": sum(p.numel() for p in model.parameters()),
                "steps": summary.get("steps"),
                "training_seconds": summary.get("seconds"),
                "evaluation_seconds": round(time.perf_counter() - started, 1),
            }
        (encoder, diffusion), (decoder, _) = opened["diffusion"], opened["autoregressive"]
        T = encoder.config.block_size
        view = diffusion.view("validation")
        ids_NT = torch.cat([ids_BT for _, ids_BT in spread_windows(encoder, view, T, args.windows)])
        found["gaps"] = [
            {
                "characters": length,
                "bits": {
                    "diffusion": diffusion_bits(diffusion, encoder, ids_NT, length, True),
                    "diffusion, left side alone": diffusion_bits(diffusion, encoder, ids_NT, length, False),
                    "autoregressive": autoregressive_bits(decoder, ids_NT, length),
                },
                "right": {
                    "diffusion": diffusion_share(encoder, diffusion.tokenizer, ids_NT, length),
                    "autoregressive": autoregressive_share(decoder, ids_NT, length),
                },
            }
            for length in GAPS
        ]
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
