"""Level 4: models in and out of folders, in the ecosystem's own form.

A model folder is `config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json` and, of what generates,
`generation_config.json`: what `transformers` reads with `from_pretrained`, with no export step. A model that reads with
another tokenizer than it writes has that one in `source/`.
"""

from glassformer.hub.families.registry import FAMILIES, family_for
from glassformer.hub.folder import (
    load,
    load_labels,
    load_model,
    load_source_tokenizer,
    model_folder_of,
    save,
)
from glassformer.hub.gguf.writing import Verified, save_gguf
from glassformer.hub.importing import Imported, import_model
from glassformer.hub.inspecting import compare, inspect
from glassformer.hub.pulling import pull
from glassformer.hub.weights import load_weights, save_weights
from glassformer.renamed import keep_old_names

__all__ = [
    "FAMILIES",
    "Imported",
    "Verified",
    "compare",
    "family_for",
    "import_model",
    "inspect",
    "load",
    "load_labels",
    "load_model",
    "load_source_tokenizer",
    "load_weights",
    "model_folder_of",
    "pull",
    "save",
    "save_gguf",
    "save_weights",
]

keep_old_names(__name__)
