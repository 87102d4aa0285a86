"""Level 4: models in and out of folders, in the ecosystem's own form.

A model folder is `config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json` and
`generation_config.json`: what `transformers.AutoModelForCausalLM.from_pretrained` reads, with no export step.
"""

from glassformer.interchange.families import INTERCHANGE_FAMILIES, family_that_expresses
from glassformer.interchange.folder import load, load_model, load_weights, model_folder_of, save, save_weights

__all__ = [
    "INTERCHANGE_FAMILIES",
    "family_that_expresses",
    "load",
    "load_model",
    "load_weights",
    "model_folder_of",
    "save",
    "save_weights",
]
