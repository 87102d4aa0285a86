"""Stream the text column of a dataset on a hub: parquet files, one after the other, a row group at a time.

The hub's API lists a dataset's files; each is opened over HTTP with range requests, so that a dataset of terabytes
needs a few megabytes here, and reading can stop anywhere. `HF_ENDPOINT` names another hub (a mirror, a test's
own server). Needs the extra `[hub]`: huggingface-hub to list and locate files, pyarrow to read them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

from glassformer.errors import DataError, MissingExtraError, did_you_mean
from glassformer.fetch import open_url

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
    except ImportError as error:
        raise MissingExtraError("reading a hub dataset", "hub") from error
    found = False
    for name, url, size, headers in list_parquet(repo):
        with RangeFile(url, size, headers) as remote:
            try:
                file = parquet.ParquetFile(remote)
                columns = file.schema_arrow.names
                if text_field not in columns:
                    raise DataError(
                        f"{repo}: no column {text_field!r} in {name} ({did_you_mean(text_field, columns)}); "
                        "name the column with --text-field"
                    )
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[text_field]):
                    for text in batch.column(0).to_pylist():
                        if not isinstance(text, str | None):
                            raise DataError(f"{repo}: column {text_field!r} holds {type(text).__name__}, not text")
                        if text:
                            found = True
                            yield text
            except (OSError, ValueError) as error:  # pyarrow's errors are both
                raise DataError(f"{repo}: {name} is not a readable parquet file ({error})") from error
    if not found:
        raise DataError(f"{repo}: column {text_field!r} holds no text")


def list_parquet(repo: str) -> list[tuple[str, str, int, dict[str, str]]]:
    """(name, address, bytes, request headers) of each parquet file that belongs to the training split.

    Raises:
        MissingExtraError, DataError: as `hub_documents`.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise MissingExtraError("reading a hub dataset", "hub") from error
    owner_and_name, folder = "/".join(repo.split("/")[:2]), "/".join(repo.split("/")[2:])
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    api = HfApi(endpoint=endpoint)
    for revision in ("main", "refs/convert/parquet"):
        try:
            tree = list(api.list_repo_tree(owner_and_name, recursive=True, revision=revision, repo_type="dataset"))
        except Exception as error:  # httpx, requests and the hub's own errors, by version
            if revision != "main":
                break
            raise DataError(f"{repo}: {_why(error)}") from error
        sizes: dict[str, int] = {
            entry.path: entry.size for entry in tree if entry.path.endswith(".parquet") and hasattr(entry, "size")
        }
        if files := _training_files([name for name in sorted(sizes) if name.startswith(folder)]):
            headers = build_hf_headers()
            return [
                (name, hf_hub_url(owner_and_name, name, repo_type="dataset", revision=revision, endpoint=endpoint),
                 sizes[name], headers)
                for name in files
            ]  # fmt: skip
    raise DataError(f"{repo}: no parquet files in this dataset; only parquet is streamed")


def _training_files(names: list[str]) -> list[str]:
    """The training files, if the names contain the split; otherwise all files."""
    return [name for name in names if "train" in name.lower()] or names


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the hub refuses it without a login (log in with: hf auth login), or it does not exist"
    if status == 404:
        return "the hub has no dataset of this name; check the spelling of owner/name"
    return "the dataset hub cannot be reached; check the network (or HF_ENDPOINT) and run again"


class RangeFile(io.RawIOBase):
    """A remote file that can be read anywhere: every read asks the server for a range of bytes.

    One block is kept, since parquet readers ask for the end first and then go forward in small steps.
    If a server ignores ranges (it answers 200, not 206), the requested range is cut from its answer.
    """

    def __init__(self, url: str, size: int, headers: dict[str, str]):
        self.url, self.size, self.headers = url, size, headers
        self._position = 0
        self._block, self._block_start = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._position + size, self.size)
        start = self._position
        if start >= stop:
            return b""
        if not (self._block_start <= start and stop <= self._block_start + len(self._block)):
            self._block = self._fetch(start, min(max(stop, start + BLOCK_BYTES), self.size))
            self._block_start = start
        self._position = stop
        return self._block[start - self._block_start : stop - self._block_start]

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fetch(self, start: int, stop: int) -> bytes:
        with open_url(self.url, {**self.headers, "Range": f"bytes={start}-{stop - 1}"}) as answer:
            skip = 0 if answer.status == 206 else start
            while skip > 0 and (dropped := answer.read(min(skip, 1 << 20))):
                skip -= len(dropped)
            data = answer.read(stop - start)
        if len(data) != stop - start:
            raise DataError(f"{self.url}: the connection broke off; run again")
        return data
