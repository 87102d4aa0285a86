"""config.json: a family's words, special tokens, names of classes, and under `glassformer` what is ours alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer import text_files
from glassformer.errors import GlassformerError, ModelFolderError, known_names, one_line
from glassformer.hub.families.family import Family
from glassformer.hub.families.registry import FAMILIES
from glassformer.models import NOTHING_SET, GenerationSettings, answers_of
from glassformer.processors.tokenizers import Tokenizer

WRONG_KIND = (TypeError, ValueError, AttributeError, ArithmeticError, IndexError)  # a list where a number belongs
MAX_JSON_BYTES = 64 * 2**20
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
FILLED_IN = "filled_in"
"""Under `glassformer` in generation_config.json: its fields that the folder did not declare, written so that
`transformers` generates as we do."""


def write_config(
    family: Family,
    config: Any,
    tokenizer: Tokenizer | None,
    labels: Sequence[str],
    settings: GenerationSettings = NOTHING_SET,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The contents of config.json and of generation_config.json; None where nothing is generated.

    Beginning and end of text are always written (null when there is none): GPT-2's default of 50256 would point outside
    a small vocabulary. Fields that the family has no word for stand under `glassformer`.

    Args:
        settings: those of generation in the folder that the model came from; all are written again.

    Raises:
        ModelFolderError: there is not one name for each class.
    """
    words = {"model_type": family.model_type, **family.write_config(config)}
    special = _special_tokens(config, tokenizer, settings)
    beyond = _differences(config.model_dump(), family.read_config({**words, **special}).model_dump())
    own = {
        **({"config": beyond} if beyond else {}),
        "tokenizer": None if tokenizer is None else tokenizer.kind,
    }
    words = {**words, **special, **_label_words(config, labels), "glassformer": own}
    if not generates(config):
        return words, None
    otherwise: Mapping[str, Any] = {"do_sample": True}
    if "target" in answers_of(config):
        otherwise = {"do_sample": False, "max_length": config.block_size}
    filled = settings.filled if settings.declared else otherwise
    ids = {name: value for name, value in special.items() if name != "is_encoder_decoder"}
    return words, {**filled, **settings.declared, **ids, "glassformer": {FILLED_IN: sorted(filled)}}


def read_config(folder: Path) -> tuple[Family, Any]:
    """Which family a model folder is of, and the configuration of its model in our words. Raises `ModelFolderError` if
    config.json is missing or damaged, or asks for what our models cannot do."""
    given = read_json(folder / "config.json")
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = known_names(FAMILIES)  # a program wrote it, so a name that is near is another model
        if isinstance(given.get("vision_config"), dict):
            known = "it sees images beside text, which no model here does; take the text model alone"
        shown = one_line(repr(kind), most=100)
        raise ModelFolderError(f"{folder}: model_type {shown} is not one that glassformer reads; {known}")
    family = FAMILIES[kind]
    refuse_adapter(folder)
    try:
        _refuse_other_values(given, family)
        config = family.read_config(given)
        own = given.get("glassformer") or {}
        beyond = {
            **({"bias": own["bias"]} if "bias" in own else {}),
            **own.get("config", {}),
        }  # bias: older folders
        if beyond:
            config = type(config).make(**_merged(config.model_dump(), beyond))
        return family, config
    except KeyError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {one_line(error.args[0])} is missing") from None
    except GlassformerError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {one_line(error)}") from None
    except WRONG_KIND as error:
        reason = one_line(error)
        raise ModelFolderError(f"{folder / 'config.json'}: a field has a value of the wrong kind ({reason})") from None


def read_labels(folder: Path) -> tuple[str, ...]:
    """The names of the classes that a classifier chooses from, in the order of its logits; () where there are none."""
    named = read_json(folder / "config.json").get("id2label")
    if not isinstance(named, dict):
        return ()
    try:
        return tuple(str(named[number]) for number in sorted(named, key=int))
    except ValueError:
        raise ModelFolderError(f"{folder / 'config.json'}: id2label has a key that is no number") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or one line about what is wrong with the file."""
    return text_files.read_json(path, ModelFolderError, most=MAX_JSON_BYTES)


def _special_tokens(config: Any, tokenizer: Tokenizer | None, settings: GenerationSettings) -> dict[str, Any]:
    """As the folder declared them. What it did not: of what writes an answer, those of its configuration; else those
    that the tokenizer names."""
    declared = {name: value for name, value in settings.declared.items() if name in SPECIAL}
    if "target" in answers_of(config):
        return {
            "is_encoder_decoder": True,
            "bos_token_id": config.start_token,
            "decoder_start_token_id": config.start_token,
            "eos_token_id": config.end_token,
            "pad_token_id": getattr(config, "pad_token", None),
            "forced_eos_token_id": settings.declared.get("forced_eos_token_id"),  # BART and Marian have defaults
            **declared,
        }
    if tokenizer is None:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **declared}
    if declared:  # a folder that names some tokens does not have the others
        return {"bos_token_id": None, "eos_token_id": tokenizer.end_of_text, "pad_token_id": None, **declared}
    known, names = tokenizer.special_tokens, tokenizer.settings
    return {
        "bos_token_id": known.get(names.get("bos_token", ""), tokenizer.end_of_text),
        "eos_token_id": tokenizer.end_of_text,
        "pad_token_id": known.get(names.get("pad_token", "")),
    }


def generates(config: Any) -> bool:
    """Whether a model of this configuration writes texts."""
    return not answers_of(config).isdisjoint({"next_token", "target"})


def _label_words(config: Any, labels: Sequence[str]) -> dict[str, Any]:
    n = getattr(config, "n_classes", 0)
    if labels and len(labels) != n:
        raise ModelFolderError(f"{len(labels)} names of classes for a model with {n}; give one for each")
    names = list(labels) or [f"LABEL_{number}" for number in range(n)]  # as transformers calls them
    if not names:
        return {}
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """What must be changed in `theirs` to be `ours`."""
    differences = {}
    for name, value in ours.items():
        if isinstance(value, dict) and isinstance(theirs.get(name), dict):
            value = _differences(value, theirs[name])
            if value:
                differences[name] = value
        elif name not in theirs or theirs[name] != value:
            differences[name] = value
    return differences


def _merged(theirs: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`theirs` with these changes; the way back from `_differences`."""
    merged = dict(theirs)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(theirs.get(name), dict)
        merged[name] = _merged(theirs[name], value) if both else value
    return merged


def refuse_adapter(folder: Path) -> None:
    """Raise for a folder of PEFT: its weights are what is added to those of another model."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_json(adapter).get("base_model_name_or_path") or "MODEL"
        raise ModelFolderError(
            f"{folder}: an adapter without its model; give its model and --adapter: {base} --adapter {folder}"
        )


def _refuse_other_values(given: dict[str, Any], family: Family) -> None:
    """Raise for packed weights, and for another value of a field that has one known value here."""
    packed = given.get("quantization_config") or given.get("compression_config")
    if packed:
        method = packed.get("quant_method", packed) if isinstance(packed, dict) else packed
        shown = one_line(method, most=40)
        raise ModelFolderError(f"packed weights ({shown}) are not read; take this model in bf16 or as a GGUF file")
    for name, only in family.fixed_keys.items():
        if given.get(name) not in (None, only):
            shown = one_line(repr(given[name]), most=60)
            raise ModelFolderError(f"config.json sets {name}={shown}; only {only!r} is supported")
