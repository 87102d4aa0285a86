"""`glassformer transcribe`: sound files in, text, times, subtitles or JSON out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import one_line, print_json


def transcribe(
    model: options.Run,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Sound files: WAV, FLAC, Ogg, MP3.")],
    timestamps: bool = typer.Option(False, "--timestamps", help="Print each segment with its start and end."),
    srt: bool = typer.Option(False, "--srt", help="Print subtitles (SubRip) of one file."),
    vtt: bool = typer.Option(False, "--vtt", help="Print subtitles (WebVTT) of one file."),
    as_json: options.Json = False,
    words: bool = typer.Option(False, "--words", help="With --json or --timestamps: when each word is said."),
    beam: int = typer.Option(1, metavar="N", help="Beam width: 1 always takes the most likely token."),
    language: str = typer.Option(None, metavar="LANGUAGE", help="Of a multilingual model, such as de; default: en."),
    translate: bool = typer.Option(False, "--translate", help="Of a multilingual model: into English."),
    prompt: str = typer.Option("", metavar="TEXT", help="A text before the sound: names, spelling."),
    temperature: list[float] = typer.Option(
        None, metavar="T", help="Tried in order until an answer is good; default: 0 0.2 0.4 0.6 0.8 1."
    ),
    padding: float = typer.Option(
        None, metavar="SECONDS", help="Add so much silence, not a full window: faster, and the text may differ."
    ),
    attention: str = typer.Option(
        None, metavar="FILE", help="Draw the spectrogram of one sound and where each token listens, as .svg or .html."
    ),
    batch_size: options.BatchSize = 8,
    seed: int = typer.Option(0, metavar="NUMBER", help="Of samples at a temperature above 0."),
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
) -> None:
    """Write down what is said in a sound file.

    A file that cannot be read is named on standard error, and the others are transcribed.

    Examples:

    glassformer transcribe whisper-tiny-en hello.wav

    glassformer transcribe whisper-tiny-en talk.flac --srt > talk.srt
    """
    from glassformer.cli.options import open_for
    from glassformer.errors import DataError, UsageError
    from glassformer.generation import TranscriptionSettings, subtitles
    from glassformer.generation import transcribe as transcripts_of

    form = "srt" if srt else "vtt" if vtt else None
    if (as_json, srt, vtt, timestamps).count(True) > 1:
        raise UsageError("--json, --srt, --vtt and --timestamps each choose what is printed; give one of them")
    if words and not (as_json or timestamps):
        raise UsageError("--words adds times of words to --json or --timestamps; give one of them")
    if form and len(files) > 1:
        raise UsageError(f"--{form} prints the subtitles of one file, and {len(files)} were given")
    if attention is not None and len(files) > 1:
        raise UsageError(f"--attention draws one sound, and {len(files)} were given")
    bundle = open_for("transcribe", model, device, dtype=dtype)
    chosen: dict[str, Any] = {"temperatures": tuple(temperature)} if temperature else {}
    settings = TranscriptionSettings(
        beam=beam,
        times=bool(timestamps or form or as_json),
        words=words,
        language=language,
        task="translate" if translate else "transcribe",
        prompt=prompt,
        padding=padding,
        batch_size=batch_size,
        seed=seed,
        **chosen,
    )
    failed, rows = False, []
    for start in range(0, len(files), batch_size):
        names, sounds = [], []
        for name in files[start : start + batch_size]:
            try:
                sounds.append(bundle.source_processor.samples(name))
                names.append(name)
            except DataError as error:
                failed = True
                typer.echo(f"{error.prefix}{error}", err=True)
        found = transcripts_of(bundle.model, bundle.tokenizer, bundle.source_processor, sounds, settings)
        for name, transcript in zip(names, found, strict=True):
            if as_json:
                rows.append({"file": name, **transcript.to_dict()})
                continue
            if form:
                typer.echo(subtitles(transcript.segments, form), nl=False)
                continue
            label = f"{name}: " if len(files) > 1 else ""
            if timestamps:
                for s in transcript.segments:
                    typer.echo(f"{label}{s.start:8.2f} {s.end:8.2f}  {one_line(s.text.strip())}")
                    for word in s.words:
                        typer.echo(f"{label}{word.start:12.2f} {word.end:8.2f}    {one_line(word.word.strip())}")
            else:
                typer.echo(label + one_line(transcript.text))
    if as_json:
        print_json(rows)
    if attention is not None and not failed:
        _draw_attention(bundle, files[0], beam, attention)
    if failed:
        raise typer.Exit(1)


def _draw_attention(bundle: Any, name: str, beam: int, path: str) -> None:
    """Write the view `speech` as a picture."""
    from glassformer.figures import save
    from glassformer.inspection.speech import speech

    found = speech(bundle.model, bundle.tokenizer, bundle.source_processor, name, beam=beam)
    save(found.figures()[:2], path, name)
    typer.echo(f"spectrogram and cross-attention drawn: {path}", err=True)
