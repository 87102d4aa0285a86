"""generation_config.json, and the older places of it in config.json, read field by field.

    applied      the fields of `GenerationSettings`
    refused      `NEUTRAL`: what would change the text and is not done here, when it is set to more than nothing
    harmless     all others: how keys and values are kept, what is returned beside the text, how drafts are checked,
                 what a Whisper's own program looks up (`lang_to_id`). They are kept, and saved again.

The table of all fields is in docs/generation-settings.md. As in `transformers`, config.json is asked only where there
is no generation_config.json, but for the ids of special tokens, for which it is asked too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glassformer.errors import ModelFolderError, one_line
from glassformer.hub.configuration import FILLED_IN, SPECIAL, read_json
from glassformer.models import GenerationSettings

NAME = "generation_config.json"
APPLIED = tuple(name for name in GenerationSettings.model_fields if name not in ("declared", "filled", "refused"))
# Fields that are refused, by the values at which they change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("diversity_penalty", "encoder_no_repeat_ngram_size", "penalty_alpha"), (None, 0)),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), (None, 0)),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale", "typical_p"), (None, 1)),
    **dict.fromkeys(("num_beam_groups", "num_return_sequences"), (None, 1)),
    **dict.fromkeys(("constraints", "force_words_ids"), (None, [])),
    **dict.fromkeys(("dola_layers", "exponential_decay_length_penalty", "max_time", "top_h"), (None,)),
    "sequence_bias": (None, {}, []),
    "token_healing": (None, False),
    "watermarking_config": (None,),
}
ONLY_WHEN_SAMPLING = ("epsilon_cutoff", "eta_cutoff", "top_h", "typical_p")
ONLY_OF_ANSWERS = ("encoder_no_repeat_ngram_size", "encoder_repetition_penalty")  # others ignore them there too
FILLED_IN_AT_FIRST = ("do_sample", "temperature", "max_length")  # by folders without them


def read_generation_settings(folder: Path, config: Mapping[str, Any]) -> GenerationSettings:
    """The settings of generation in a model folder.

    Args:
        config: the content of its config.json.

    Raises:
        ModelFolderError: a field has a value of the wrong kind.
    """
    file = folder / NAME
    there = file.is_file()
    given = read_json(file) if there else _older_places(config)
    given = {**{name: config[name] for name in SPECIAL if name in config}, **_set(given)}
    own = given.pop("glassformer", None)
    names = own.get(FILLED_IN, ()) if isinstance(own, dict) else ()
    if own is None and there and "glassformer" in config:
        names = FILLED_IN_AT_FIRST
    filled = {name: given.pop(name) for name in names if name in given}
    where = file if there else folder / "config.json"
    return parsed(given, where=where, answers=_answers(config)).model_copy(update={"filled": filled})


def parsed(given: Mapping[str, Any], *, where: Path | str, answers: bool = False) -> GenerationSettings:
    """Settings from the fields of a generation_config.json.

    Args:
        where: the file, for errors. answers: of an encoder-decoder.

    Raises: as `read_generation_settings`.
    """
    given = _set(given)
    try:
        return GenerationSettings(
            **{name: given[name] for name in APPLIED if name in given},
            declared=given,
            refused=tuple(_refused(given, answers)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        shown = one_line(json.dumps(given.get(field), default=str), most=80)
        raise ModelFolderError(
            f"{where}: {field} is {shown}: {first['msg'].lower()}; correct the file or take the field out"
        ) from None


def _older_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config.json that are about generating; those of a part of the model where the whole has
    nothing."""
    names = (*APPLIED, *NEUTRAL)
    inner: dict[str, Any] = next(
        (config[part] for part in ("decoder", "text_config") if isinstance(config.get(part), dict)), {}
    )
    return {name: place[name] for place in (inner, config) for name in names if place.get(name) is not None}


def _set(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _answers(config: Mapping[str, Any]) -> bool:
    """Whether it is the config.json of an encoder-decoder."""
    return bool(config.get("is_encoder_decoder")) or "decoder_start_token_id" in config or "decoder_layers" in config


def _refused(given: Mapping[str, Any], answers: bool) -> list[str]:
    sampling = bool(given.get("do_sample"))
    found = [
        f"{name}={one_line(json.dumps(given[name], default=str), most=60)}"
        for name, neutral in NEUTRAL.items()
        if name in given
        and given[name] not in neutral
        and (sampling or name not in ONLY_WHEN_SAMPLING)
        and (answers or name not in ONLY_OF_ANSWERS)
    ]
    beams = given.get("num_beams")
    if isinstance(beams, int) and beams > 1 and (sampling or not answers):
        found.append(f"num_beams={beams}" + (" with do_sample" if answers else " of a model that answers no source"))
    return found
