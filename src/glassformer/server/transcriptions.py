"""OpenAI's transcriptions: a sound file in a form, its text as JSON, plain text or subtitles.

POST /v1/audio/transcriptions      multipart/form-data: file, model, language, prompt, response_format, temperature
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from glassformer.errors import DataError, did_you_mean
from glassformer.generation import Transcript, TranscriptionSettings, subtitles, transcribe
from glassformer.generation.transcribe import TEMPERATURES
from glassformer.server.middleware import APIError, unless_disconnected
from glassformer.server.worker import ModelHandle, find_model

FORMS = ("json", "text", "srt", "verbose_json", "vtt")
FIELDS = {
    "file",
    "model",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities[]",
    "stream",
}
MAX_PROMPT = 10_000  # characters


def transcription_routes(models: Mapping[str, ModelHandle]) -> APIRouter:
    """The paths under `/v1/audio` for these models."""
    routes = APIRouter(prefix="/v1/audio")

    @routes.post("/transcriptions")
    async def transcriptions(http: HTTPRequest) -> Any:
        """Write down what is said in a sound file."""
        fields, given, sound = await _form(http)
        handle = find_model(models, fields.get("model"))
        if not handle.transcribes:
            raise APIError(400, f"{handle.name} transcribes nothing; serve whisper-tiny-en and name it", param="model")
        form = fields.get("response_format", "json")
        if form not in FORMS:
            raise APIError(400, f"response_format: {did_you_mean(form, FORMS)}", param="response_format")
        asked = _granularities(given, form)
        settings = _settings(fields, times=form in ("srt", "verbose_json", "vtt"), words="word" in asked)
        work = run_in_threadpool(handle.run_alone, _transcript, handle, sound, settings)
        try:
            found = await unless_disconnected(work, http)
        except DataError as error:
            raise APIError(400, str(error).replace("a sound:", "file:"), param="file") from None
        if form == "text":
            return Response(found.text + "\n", media_type="text/plain")
        if form in ("srt", "vtt"):
            return Response(subtitles(found.segments, form), media_type="text/plain")
        whole = {"task": "transcribe", "language": settings.language or "en", **found.to_dict()}
        if "segment" not in asked:
            del whole["segments"]
        return whole if form == "verbose_json" else {"text": found.text}

    return routes


def _transcript(handle: ModelHandle, sound: bytes, settings: TranscriptionSettings) -> Transcript:
    return transcribe(handle.model, handle.tokenizer, handle.processor, [sound], settings)[0]


async def _form(http: HTTPRequest) -> tuple[dict[str, str], list[str], bytes]:
    """The fields of a form, its `timestamp_granularities`, and the bytes of its file. Raises `APIError`."""
    if not http.headers.get("content-type", "").startswith("multipart/form-data"):
        raise APIError(400, "the body is no form; send the file as multipart/form-data")
    try:
        form: FormData = await http.form(max_files=1, max_fields=2 * len(FIELDS))
    except HTTPException as error:
        raise APIError(400, f"the form cannot be read: {error.detail}") from None
    if unknown := sorted(set(form) - FIELDS):
        raise APIError(400, f"{unknown[0]}: there is no such field here; leave it out", param=unknown[0])
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise APIError(400, "file: is missing; send a sound file", param="file")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    granularities = [str(value) for value in form.getlist("timestamp_granularities[]")]
    return fields, granularities, await file.read()


def _granularities(given: list[str], form: str) -> list[str]:
    """What gets times: segments, words or both. Raises `APIError`."""
    for value in given:
        if value not in ("segment", "word"):
            message = f"timestamp_granularities: {did_you_mean(value, ('segment', 'word'))}"
            raise APIError(400, message, param="timestamp_granularities")
    if "word" in given and form != "verbose_json":
        message = f"timestamp_granularities: words are part of verbose_json, not of {form}; set response_format"
        raise APIError(400, message, param="timestamp_granularities")
    return given or ["segment"]


def _settings(fields: dict[str, str], *, times: bool, words: bool) -> TranscriptionSettings:
    """What the fields ask for. Raises `APIError`."""
    if fields.get("stream", "false").lower() != "false":
        raise APIError(400, "stream: transcripts come whole; leave it out", param="stream")
    if len(prompt := fields.get("prompt", "")) > MAX_PROMPT:
        raise APIError(400, f"prompt: has {len(prompt):,} characters, and {MAX_PROMPT:,} are the most", param="prompt")
    try:
        temperature = float(fields.get("temperature") or 0)
        if not 0 <= temperature <= 1:
            raise ValueError
    except ValueError:
        raise APIError(400, "temperature: give a number from 0 to 1", param="temperature") from None
    temperatures = TEMPERATURES if temperature == 0 else (temperature,)  # as OpenAI has it: 0 is raised where needed
    language = fields.get("language") or None
    return TranscriptionSettings(times=times, words=words, language=language, prompt=prompt, temperatures=temperatures)
