"""Transcripts as subtitles: SubRip (`srt`) and WebVTT (`vtt`)."""

from __future__ import annotations

from collections.abc import Iterable

from glassformer.generation.transcribe import Segment


def stamp(seconds: float, comma: str) -> str:
    """A time as subtitles have it.

    >>> stamp(3661.5, ",")
    '01:01:01,500'
    """
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{comma}{ms % 1000:03}"


def subtitles(segments: Iterable[Segment], form: str) -> str:
    """Segments as `srt` (SubRip) or `vtt` (WebVTT). A text cannot end a subtitle early or begin another one."""
    comma = "," if form == "srt" else "."
    blocks = ["WEBVTT\n"] if form == "vtt" else []
    for number, segment in enumerate(segments, 1):
        text = " ".join(segment.text.split()).replace("-->", "->")
        if form == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;")
        head = f"{number}\n" if form == "srt" else ""
        blocks.append(f"{head}{stamp(segment.start, comma)} --> {stamp(segment.end, comma)}\n{text}\n")
    return "\n".join(blocks)
