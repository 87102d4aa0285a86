"""Files that are sent to be looked into, and the refusal to read one of this machine by its name."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glassformer.data.trajectory_sets import TRAJECTORY_SETS
from glassformer.errors import GlassformerError
from glassformer.inspection.files import is_picture
from glassformer.inspection.look import Subject
from glassformer.server.inspect_schemas import ViewBody
from glassformer.server.middleware import APIError

WORDS = {"patches": "images", "frames": "sound", "trajectory": "episodes", "image_text": "images and texts"}


@contextlib.contextmanager
def uploaded(subject: Subject, body: ViewBody) -> Iterator[dict[str, Any]]:
    """The options of a view; for a model that reads files, with the file that was sent. No file of this machine is read
    by its name, but the sets of episodes that come with the package are. A model of images and texts takes either: a
    text is a text here, unless it ends like the name of a picture.

    Raises:
        APIError: the model reads files and none was sent, or the reverse; it is no base64. DataError: it is damaged.
    """
    options, option = dict(body.options), "sound" if "sound" in body.options else "text"
    text = body.options.get(option)
    reads = "" if subject.processor is None else str(subject.model.reads)
    name, _, rest = str(text).partition(":")
    _refuse_paths(subject.tokenizer, text)
    no_file = (reads == "trajectory" and name in TRAJECTORY_SETS) or (
        reads == "image_text" and not is_picture(str(text))
    )
    if not reads or text is None or (no_file and body.file is None):
        if body.file is not None:
            raise APIError(400, "file: this model or this view reads no file; leave it out", param="file")
        yield options
        return
    if body.file is None:
        sets = f", or the name of a set ({', '.join(TRAJECTORY_SETS)})" if reads == "trajectory" else ""
        raise APIError(
            400, f"file: this model reads {WORDS.get(reads, reads)}; send a file as base64{sets}", param="file"
        )
    try:
        content = base64.b64decode(body.file, validate=True)
    except ValueError:
        raise APIError(400, "file: this is no base64; encode the file's bytes", param="file") from None
    with tempfile.TemporaryDirectory() as folder:
        ending = re.search(r"\.[a-z0-9]{1,5}$", name.lower())
        path = Path(folder) / f"file{ending[0] if ending else ''}"
        path.write_bytes(content)
        try:
            yield {**options, option: f"{path}:{rest}" if rest and reads == "trajectory" else str(path)}
        except GlassformerError as error:
            raise APIError(400, str(error).replace(str(path), Path(name).name or "the file"), param="file") from None


def _refuse_paths(reader: Any, text: Any) -> None:
    """Records name pictures by their paths, which are this machine's."""
    named = [part.name for part in getattr(reader, "parts", ()) if part.kind == "image"]
    if not named:
        return
    try:
        record = json.loads(str(text))
    except ValueError:
        return  # the processor says what is wrong with it
    if isinstance(record, dict) and (given := [name for name in named if record.get(name) is not None]):
        raise APIError(400, f"text: {given[0]} is a picture, which records sent to a server cannot name; leave it out")
