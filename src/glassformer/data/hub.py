"""Stream the text column of a dataset on a hub: parquet files, one after the other, a row group at a time.

Files are read by range requests, so that a dataset of terabytes needs a few megabytes here, and reading can stop
anywhere. `HF_ENDPOINT` names another hub. Needs the extra `[hub]`: huggingface-hub and pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from glassformer.errors import DataError, MissingExtraError, did_you_mean

BATCH_ROWS = 1024  # rows decoded at a time: a few MB of text
BLOCK_BYTES = 4 << 20  # the least that one request asks for


def hub_documents(repo: str, text_field: str = "text") -> Iterator[str]:
    """The texts of `owner/name` (or `owner/name/folder/in/it`), in the order of its files.

    Of the files that name a split, those of "train" are read. A dataset without parquet files of its own is read
    from the copy that the hub converts (`refs/convert/parquet`).

    Raises:
        MissingExtraError: huggingface-hub or pyarrow is not installed.
        DataError: no such dataset, no connection, no parquet files, or no such column (its columns are listed).
    """
    try:
        import pyarrow.parquet as parquet
        from huggingface_hub import HfApi, HfFileSystem
    except ImportError as error:
        raise MissingExtraError("reading a hub dataset", "hub") from error
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    owner_and_name = "/".join(repo.split("/")[:2])
    revision, sizes = _parquet_files(HfApi(endpoint=endpoint), repo, owner_and_name)
    hub = HfFileSystem(endpoint=endpoint)
    found = False
    for name, size in sizes.items():
        try:
            path = f"datasets/{owner_and_name}/{name}"
            with hub.open(path, revision=revision, size=size, block_size=BLOCK_BYTES) as remote:
                for text in _column(parquet.ParquetFile(remote), text_field, f"{repo}: {name}"):
                    found = True
                    yield text
        except DataError:
            raise
        except Exception as error:  # of pyarrow, of the hub's client and of the one below it, by version
            raise DataError(f"{repo}: {name} is not a readable parquet file ({error})") from error
    if not found:
        raise DataError(f"{repo}: column {text_field!r} holds no text")


def _column(file: Any, text_field: str, where: str) -> Iterator[str]:
    """The texts of one parquet file that are not empty."""
    columns = file.schema_arrow.names
    if text_field not in columns:
        hint = did_you_mean(text_field, columns)
        raise DataError(f"{where} has no column {text_field!r} ({hint}); name the column with --text-field")
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[text_field]):
        for text in batch.column(0).to_pylist():
            if not isinstance(text, str | None):
                raise DataError(f"{where}: column {text_field!r} holds {type(text).__name__}, not text")
            if text:
                yield text


def _parquet_files(api: Any, repo: str, owner_and_name: str) -> tuple[str, dict[str, int]]:
    """The revision that has parquet files, and the names and sizes of those of the training split."""
    folder = repo.removeprefix(owner_and_name).lstrip("/")
    for revision in ("main", "refs/convert/parquet"):
        try:
            tree = list(api.list_repo_tree(owner_and_name, recursive=True, revision=revision, repo_type="dataset"))
        except Exception as error:  # httpx, requests and the hub's own errors, by version
            if revision != "main":
                break
            raise DataError(f"{repo}: {_why(error)}") from error
        parquet = (e for e in tree if e.path.endswith(".parquet") and e.path.startswith(folder) and hasattr(e, "size"))
        sizes = {entry.path: entry.size for entry in sorted(parquet, key=lambda entry: entry.path)}
        training = {name: size for name, size in sizes.items() if "train" in name.lower()}
        if sizes:
            return revision, training or sizes
    raise DataError(f"{repo}: no parquet files in this dataset; only parquet is streamed")


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the hub refuses it without a login (log in with: hf auth login), or it does not exist"
    if status == 404:
        return "the hub has no dataset of this name; check the spelling of owner/name"
    return "the dataset hub cannot be reached; check the network (or HF_ENDPOINT) and run again"
