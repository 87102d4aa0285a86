"""glassformer: the Transformer you can train, use and see through.

    import glassformer as gf
    model, tokenizer = gf.load("runs/shakespeare-char-1")
    for piece in gf.stream(model, tokenizer, "ROMEO:", max_new_tokens=200, temperature=0.8, seed=1):
        print(piece.text, end="")

The names below are the public ones. They are imported when first used, so that `import glassformer` and the command
line's help do not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from glassformer.renamed import OldModules

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "glassformer.hub",
    "Decoder": "glassformer.models",
    "GlassformerError": "glassformer.errors",
    "KVCache": "glassformer.layers",
    "ModelConfig": "glassformer.models",
    "ablate": "glassformer.inspection",
    "edit": "glassformer.inspection",
    "generate": "glassformer.generation",
    "load": "glassformer.hub",
    "load_tokenizer": "glassformer.processors.tokenizers",
    "next_token": "glassformer.inspection",
    "save": "glassformer.hub",
    "stream": "glassformer.generation",
    "surprise": "glassformer.inspection",
    "trace": "glassformer.inspection",
    "train": "glassformer.recipes",
}

__all__ = ["__version__", *_HOMES]

sys.meta_path.append(OldModules)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'glassformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
