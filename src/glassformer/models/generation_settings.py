"""The settings of generation in a model's folder: `generation_config.json`, in the names of `transformers`.

A model carries its settings as `model.generation_settings`; loading a folder fills them in, saving writes them back.
https://huggingface.co/docs/transformers/main_classes/text_generation#transformers.GenerationConfig
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from glassformer.errors import UsageError


def _as_list(value: Any) -> Any:
    """One value, or a list of them, as a list; None is an empty one."""
    return [] if value is None else value if isinstance(value, (list, tuple)) else [value]


def _ids(value: Any) -> Any:
    """Ids as they stand in files: one or a list; negative ones stand for none (-1 is an old form of it)."""
    return [i for i in _as_list(value) if not (type(i) is int and i < 0)]


def _id(value: Any) -> Any:
    return None if type(value) is int and value < 0 else value


Token = Annotated[StrictInt, Field(ge=0)]
MaybeToken = Annotated[Token | None, BeforeValidator(_id)]
Tokens = Annotated[tuple[Token, ...], BeforeValidator(_ids)]
Length = Annotated[StrictInt, Field(ge=0)]


class GenerationSettings(BaseModel):
    """Which tokens begin and end a text, which are never drawn, and the defaults of a request.

    None, and an empty list, is: the folder has no such setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bos_token_id: MaybeToken = None
    """What an empty prompt is."""
    eos_token_id: Tokens = ()
    """Each of them ends a text."""
    pad_token_id: MaybeToken = None
    decoder_start_token_id: MaybeToken = None
    """Of an encoder-decoder: what an answer begins with, in place of the configuration's `start_token`."""
    forced_bos_token_id: MaybeToken = None
    """The token after the first one, where there is one token so far."""
    forced_eos_token_id: Tokens = ()
    """The last token of a text that is as long as it may be."""
    forced_decoder_ids: tuple[tuple[Length, Token | None], ...] = ()
    """(place in the answer, token) of an encoder-decoder; its start token has place 0. None: free."""

    bad_words_ids: tuple[tuple[Token, ...], ...] = ()
    """Sequences of tokens that never come."""
    suppress_tokens: Tokens = ()
    """Tokens that never come."""
    begin_suppress_tokens: Tokens = ()
    """Tokens that do not come first."""
    no_repeat_ngram_size: Length = 0
    """No sequence of so many tokens comes twice, the prompt included; 0: any may."""
    min_length: Length = 0
    """No end before there are so many tokens, the prompt included."""
    min_new_tokens: Length = 0
    """No end before so many tokens are written."""
    stop_strings: Annotated[tuple[StrictStr, ...], BeforeValidator(_as_list)] = ()

    max_length: Annotated[StrictInt, Field(ge=1)] | None = None
    """The most tokens, the prompt included; bounds the default of `max_new_tokens`."""
    max_new_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    do_sample: StrictBool | None = None
    """False: the most likely token each time, unless a temperature is asked for."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    num_beams: Annotated[StrictInt, Field(ge=1)] | None = None
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Answers are ranked by log-probability / length ** length_penalty."""
    early_stopping: StrictBool | StrictStr | None = None
    """True: a search ends when `num_beams` answers have ended; else when no better one can come."""

    declared: Mapping[str, Any] = {}
    """All fields of the folder as they stand there, also those that mean nothing here: they are saved again."""
    filled: Mapping[str, Any] = {}
    """Fields that glassformer wrote there so that `transformers` generates alike; the folder did not declare them."""
    refused: tuple[str, ...] = ()
    """Fields that would change what is generated and that glassformer does not apply, with their values."""

    def check(self) -> None:
        """Raise `UsageError` if the folder asks for something that is not done here: who generates would get another
        text than its maker meant."""
        if self.refused:
            raise UsageError(
                f"generation_config.json asks for {', '.join(self.refused)}, which glassformer does not apply; take it "
                "out of that file to generate without it"
            )

    def sampling_defaults(self) -> dict[str, Any]:
        """The fields of `Sampling` that the folder sets."""
        found = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
        if self.do_sample is False:
            found["temperature"] = 0.0
        if found["top_k"] is not None:
            found["top_k"] = max(0, found["top_k"])  # -1 means all, too
        return {name: value for name, value in found.items() if value is not None}

    def default_new_tokens(self, n_prompt: int, otherwise: int) -> int:
        """The most tokens to write by default: the folder's, else `otherwise`, within the
        folder's `max_length`. At least one."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return otherwise if self.max_length is None else max(1, min(otherwise, self.max_length - n_prompt))


NOTHING_SET = GenerationSettings()


def settings_of(model: Any) -> GenerationSettings:
    """The settings that a model carries."""
    found: GenerationSettings = getattr(model, "generation_settings", NOTHING_SET)
    return found
