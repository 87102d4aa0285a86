"""Level 4: models in and out of folders, in the ecosystem's own form.

A model folder is `config.json`, `model.safetensors`, the files of its processor and, of a model that generates,
`generation_config.json`: what `transformers` reads with `from_pretrained`, with no export step. A model that reads with
another tokenizer than it writes has that one in `source/`.

loading.py, bundle.py    `load(path)` gives a `Bundle`: model, processors, labels
adapters.py              LoRA adapters in `peft`'s format
locate.py                the folder that a path, a run or a pulled name stands for
folder.py                a model folder written and read; configuration.py, generation_config.py, weights.py: its files
families/                one file for each Hugging Face family: configuration and weights, both ways
state_dict.py            a family's tensors as a model's parameters
importing.py             gguf/, ctranslate2/, nanogpt.py: other programs' files
pulling.py, published.py known models, and where they are fetched from
inspecting.py            what a file or folder holds, without running it
"""

from glassformer.hub.bundle import Bundle
from glassformer.hub.families.registry import FAMILIES, family_for
from glassformer.hub.folder import load_model, save
from glassformer.hub.gguf.writing import Verified, save_gguf
from glassformer.hub.importing import Imported, import_model
from glassformer.hub.inspecting import compare, inspect
from glassformer.hub.loading import load, load_labels, load_source_tokenizer
from glassformer.hub.locate import model_folder_of
from glassformer.hub.pulling import pull
from glassformer.hub.weights import load_weights, save_weights
from glassformer.renamed import keep_old_names

__all__ = [
    "FAMILIES",
    "Bundle",
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
