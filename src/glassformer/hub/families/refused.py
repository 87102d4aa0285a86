"""What a folder of Hugging Face's may hold that makes its weights another model: refused, where nothing applies it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassformer.errors import ModelFolderError, one_line
from glassformer.hub.families.family import Family

ADAPTER = "adapter_config.json"


def refuse_adapter(folder: Path) -> None:
    """Raise for a folder of PEFT: its weights are what is added to those of another model."""
    if (folder / ADAPTER).is_file():
        raise ModelFolderError(
            f"{folder / ADAPTER}: an adapter of PEFT, which is added to another model; merge the two first (peft: "
            "PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(out))"
        )


def refuse_quantised(given: dict[str, Any], family: Family) -> None:
    """Raise for weights that are packed in a format that the family does not unpack."""
    told = given.get("quantization_config") or given.get("compression_config")
    if not told:
        return
    method = told.get("quant_method") if isinstance(told, dict) else None
    if method not in family.unpacks:
        raise ModelFolderError(
            f"config.json sets quantization_config ({one_line(method or told, most=40)}), whose packed weights are not "
            "read; take the weights in bf16, or a GGUF file of this model"
        )


def refuse_other_values(given: dict[str, Any], family: Family) -> None:
    """Raise for a field whose value changes what the family computes, and of which one value alone is known here."""
    for name, only in family.fixed_words.items():
        if name in given and given[name] is not None and given[name] != only:
            raise ModelFolderError(
                f"config.json sets {name}={one_line(repr(given[name]), most=60)}, where our models compute with "
                f"{only!r} alone"
            )
