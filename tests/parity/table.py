"""The parity table of docs/models.md: `PYTHONPATH=tests python tests/parity/table.py` prints it.

For every family the largest difference over its cases (`families.py`), at prime sizes, with random weights, in fp32:

    in          a folder of transformers read here: logits
    out         a folder written here, with weights drawn here, read by transformers: logits
    gradients   of a cross-entropy loss with respect to every parameter, each by its largest number
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from families import CASES, Case, plainly
from test_families import loss, their_gradients
from toys import shaken

from glassformer.hub import FAMILIES, load_model, save

NAMES = {
    "gpt2": "GPT-2", "gpt_neo": "GPT-Neo (TinyStories)", "gpt_neox": "GPT-NeoX (Pythia)", "llama": "Llama",
    "qwen2": "Qwen 2, 2.5", "qwen3": "Qwen 3", "mistral": "Mistral", "phi3": "Phi-3", "olmo2": "OLMo 2",
    "smollm3": "SmolLM3", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3 (text)", "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3-MoE", "gpt_oss": "gpt-oss (bf16)", "bert": "BERT", "vit": "ViT", "deit": "DeiT", "clip": "CLIP",
    "t5": "T5", "marian": "Marian", "bart": "BART", "whisper": "Whisper",
    "decision_transformer": "Decision Transformer",
}  # fmt: skip


class Differences(NamedTuple):
    logits_in: float
    logits_out: float
    gradients: float


def differences(case: Case, folder: Path) -> Differences:
    """Of one case; the folder is for the files of both sides."""
    theirs = case.build()
    theirs.save_pretrained(folder / "theirs")
    ours = load_model(folder / "theirs")
    logits, expected = case.ours(ours), case.theirs(theirs)
    loss(logits).backward()
    loss(expected).backward()
    family = FAMILIES[theirs.config.model_type]
    found = family.write_tensors({name: p.grad for name, p in ours.named_parameters()}, ours.config)
    wanted = their_gradients(theirs, folder / "gradients")
    noise = 1e-6 * max(float(gradient.abs().max()) for gradient in wanted.values())
    relative = [
        largest(found[name], gradient) / max(float(gradient.abs().max()), noise)
        for name, gradient in wanted.items()
        if name not in case.made and gradient.abs().max() > noise  # a softmax does not see the biases of keys
    ]
    with torch.no_grad():
        shaken(ours, seed=1)
        save(folder / "ours", ours)
        given = json.loads((folder / "ours" / "config.json").read_text())
        kind = type(theirs) if given["model_type"] == family.model_type else None
        reader = kind or getattr(transformers, given["architectures"][0])
        again = plainly(reader.from_pretrained(folder / "ours"))
        out = largest(case.theirs(again), case.ours(ours))
    return Differences(largest(logits, expected), out, max(relative))


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def rows() -> Iterator[tuple[str, int, Differences]]:
    """Family, how many cases it has, and the largest of their differences."""
    found: dict[str, list[Differences]] = {name: [] for name in NAMES}
    for case in CASES.values():
        with tempfile.TemporaryDirectory() as folder:
            found[case.config.model_type].append(differences(case, Path(folder)))
    for name, cases in found.items():
        yield name, len(cases), Differences(*(max(column) for column in zip(*cases, strict=True)))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| family | `model_type` | cases | logits in | logits out | gradients |")
    print("|---|---|---:|---:|---:|---:|")
    for name, n, d in rows():
        shown = " | ".join(f"{value:.0e}".replace("e-0", "e-") for value in d)
        print(f"| {NAMES[name]} | `{name}` | {n} | {shown} |")


if __name__ == "__main__":
    main()
