"""`glassformer say`: a text as speech."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json


def say(
    model: options.Run,
    text: str = typer.Argument(metavar="TEXT", help="What to say, in quotes; - reads standard input."),
    out: str = typer.Option("speech.wav", metavar="FILE", help="The sound file: .wav, .flac or .ogg."),
    voice: str = typer.Option(None, metavar="NAME", help="One of the model's voices; default: its first."),
    temperature: float = typer.Option(0.0, metavar="T", help="0 (default): the most likely levels; 1 draws them."),
    seed: int = typer.Option(0, metavar="NUMBER", min=0, help="Same seed, same speech."),
    html: str = typer.Option(None, metavar="FILE", help="Draw spectrogram and attention, as .html or .svg."),
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say a text with a text-to-speech model.

    Sentences are said one by one. A character that the model has not learned is
    refused: spell numbers out.

    Examples:

    glassformer say runs/say-1 "Who are you?" --out who.wav

    glassformer say runs/say-voices-1 "Who are you?" --voice en-gb
    """
    from glassformer.cli.options import open_for, text_or_stdin
    from glassformer.figures import save as save_figures
    from glassformer.generation.say import check_sound_path
    from glassformer.generation.say import say as say_text
    from glassformer.tasks.speech_figures import said_figures

    check_sound_path(out)
    bundle = open_for("say", model, device)
    speech = say_text(
        bundle.model, bundle.processor, text_or_stdin(text), voice=voice, temperature=temperature, seed=seed
    )
    speech.save(out)
    if html is not None:
        pairs = zip(speech.sentences, speech.said, strict=True)
        save_figures([figure for pair in pairs for figure in said_figures(bundle.processor, *pair)], html)
        typer.echo(f"spectrogram and attention drawn: {html}", err=True)
    cut = [sentence for sentence, said in zip(speech.sentences, speech.said, strict=True) if not said.ended]
    for sentence in cut:
        typer.echo(f"cut, for the model did not end it: {sentence}", err=True)
    if as_json:
        n = len(speech.sentences)
        print_json({"file": out, "seconds": round(speech.seconds, 3), "rate": speech.rate, "sentences": n, "cut": cut})
        return
    typer.echo(f"{out}: {speech.seconds:.2f} seconds")
