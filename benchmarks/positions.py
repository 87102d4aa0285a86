"""What each kind of positions is worth: six kinds, three seeds, one small model; and who notices shuffled tokens.

    python benchmarks/positions.py [--seeds 1337 1338 1339] [--steps 600]

Prints the table of docs/shapes.md. Loss: `shakespeare-char-cpu` at 2 layers, 64 wide, validation loss on the whole
split, mean over the seeds and the lowest and highest of them. Every kind gets the recipe's rate and its own defaults.

Shuffled: an encoder with random weights and full attention reads tokens in order and shuffled; the table shows the
largest difference of a token's vector between the two. Without positions attention is a sum over a set
(permutation-equivariant): the vectors are shuffled like the tokens, and equal up to rounding. One thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)

SHAPE = ["model.n_layer=2", "model.n_embd=64"]


def loss(positions: str, seed: int, steps: int) -> float:
    """Validation loss of one run, in a process of its own."""
    import json

    settings = [*SHAPE, f"model.positions={positions}", f"training.steps={steps}"]
    command = [sys.executable, "-m", "glassformer", "train", "shakespeare-char-cpu", *settings]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--seed", str(seed), "--quiet", "--json", "--out", str(Path(folder) / "run")],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return float(json.loads(done.stdout)["val_loss"])


def difference(positions: str) -> float:
    """Largest change of a token's vector (length 8) when the tokens around it are shuffled."""
    import torch

    from glassformer.models import Encoder, EncoderConfig

    torch.manual_seed(0)
    shape = {"vocab_size": 65, "block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64}
    model = Encoder(EncoderConfig.make(positions=positions, **shape)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    ids_BT, order_T = torch.randint(65, (1, 64)), torch.randperm(64)
    with torch.no_grad():
        return float((model(ids_BT)[:, order_T] - model(ids_BT[:, order_T])).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339])
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()

    from glassformer.layers import POSITIONS

    rows = []
    for kind in POSITIONS:
        losses = [loss(kind, seed, args.steps) for seed in args.seeds]
        rows.append((statistics.mean(losses), min(losses), max(losses), kind))
        print(f"{kind}: {losses}", file=sys.stderr, flush=True)
    print(f"| `model.positions` | loss, mean of {len(args.seeds)} seeds | lowest to highest | shuffled input changes |")
    print("|---|---|---|---|")
    for mean, low, high, kind in sorted(rows):
        print(f"| `{kind}` | {mean:.3f} | {low:.3f} to {high:.3f} | {difference(kind):.1g} |")


if __name__ == "__main__":
    main()
