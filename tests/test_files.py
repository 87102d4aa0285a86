"""Files that are whole or not there: a failed write leaves the old content and no litter."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from glassformer import files
from glassformer.errors import GlassformerError
from glassformer.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    disk_errors,
    json_text,
    sha256_file,
    write_json,
    write_text,
)


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden things too."""
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "/" for p in sorted(folder.rglob("*"))}


def test_a_file_appears_when_the_block_ends(tmp_path: Path):
    with atomic_file(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert tree(tmp_path) == {"deep": "/", "deep/a.txt": "new"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "run", replace=True) as temporary:
            (temporary / f"{text}.txt").write_text(text)
            (temporary / "sub").mkdir()
    assert tree(tmp_path) == {"run": "/", "run/new.txt": "new", "run/sub": "/"}


def test_when_the_last_rename_fails_the_old_folder_comes_back(tmp_path: Path, monkeypatch):
    """There are two renames; between them the old folder is out of its place."""
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a.txt").write_text("old")
    rename = os.rename

    def disk_that_fails(source, target):
        if Path(target) == tmp_path / "run" and Path(source).suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", disk_that_fails)
    full = pytest.raises(GlassformerError, match="no space left")
    with full, atomic_folder(tmp_path / "run", replace=True) as temporary:
        (temporary / "b.txt").write_text("new")
    assert tree(tmp_path) == {"run": "/", "run/a.txt": "old"}


def test_permissions_are_the_users_own_and_not_the_temporary_files(tmp_path: Path):
    """`mkstemp` gives 0600, which would shut out everybody else from a shared run."""
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "run"):
            pass
        assert os.umask(0o027) == 0o027  # looking at the umask did not change it
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "run")]
    assert modes == [0o640, 0o750]


def test_text_and_json_are_plain_utf8_with_unix_line_ends(tmp_path: Path):
    write_text(tmp_path / "a.txt", "é\n\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n\r\n"
    write_json(tmp_path / "a.json", {"é": [1, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"é": [1, None]} and '"é": [\n' in text and text.endswith("}\n")


def test_sha256_of_more_than_one_piece(tmp_path: Path):
    data = b"0123456789" * 200_000  # 2 MB, read in pieces of 1 MiB
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_cache_folder_can_be_moved(monkeypatch):
    monkeypatch.setenv("GLASSFORMER_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path.home() / "own"
    monkeypatch.delenv("GLASSFORMER_CACHE")
    assert cache_folder() == Path("/xdg/glassformer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "glassformer"


def test_json_has_no_nan_and_no_infinity(tmp_path: Path):
    """`json.dumps` writes NaN, which `jq`, browsers and every other reader of JSON refuse."""
    data = {"loss": float("nan"), "interval": (0.5, float("-inf")), "name": "é", "deep": [{"n": 3, "ok": True}]}
    write_json(tmp_path / "a.json", data)
    strict = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert strict == {"loss": None, "interval": [0.5, None], "name": "é", "deep": [{"n": 3, "ok": True}]}
    assert json_text(data) == '{"loss": null, "interval": [0.5, null], "name": "é", "deep": [{"n": 3, "ok": true}]}'


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failed_block_leaves_what_was_there_and_no_litter(tmp_path: Path, error):
    write_text(tmp_path / "a.txt", "old")
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a.txt").write_text("old")
    with pytest.raises(error), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the ne")
        raise error
    with pytest.raises(error), atomic_folder(tmp_path / "run", replace=True) as temporary:
        (temporary / "b.txt").write_text("new")
        raise error
    assert tree(tmp_path) == {"a.txt": "old", "run": "/", "run/a.txt": "old"}


def new_folder(path: Path, **options) -> None:
    with atomic_folder(path, **options) as temporary:
        (temporary / "b.txt").write_text("new")


@pytest.mark.parametrize(
    ("act", "name", "rule"),
    [
        (new_folder, "notes", "this is a file, and a folder is needed"),
        (lambda path: new_folder(path, replace=True), "notes", "this is a file, and a folder is needed"),
        (new_folder, "run", "something is already there"),
        (lambda path: write_text(path, "new"), "run", "this is a folder, and a file is needed"),
        (lambda path: write_text(path, "new"), "notes/run", "this is a file, and a folder is needed"),
        (new_folder, "notes/run", "this is a file, and a folder is needed"),
        (lambda path: write_text(path, "new"), "a" * 300, r"not a usable name \(File name too long\)"),
    ],
)
def test_what_is_in_the_way_stays_and_is_one_line(tmp_path: Path, act, name: str, rule: str):
    write_text(tmp_path / "notes", "mine")
    write_text(tmp_path / "run" / "a.txt", "old")
    with pytest.raises(GlassformerError, match=f"^{tmp_path}/{name}: {rule}; choose another"):
        act(tmp_path / name)
    assert tree(tmp_path) == {"notes": "mine", "run": "/", "run/a.txt": "old"}


def test_a_disk_that_is_full_at_the_last_moment(tmp_path: Path, monkeypatch):
    """Many file systems hand out space when data is flushed, so `fsync` is where a full disk shows."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(files.os, "fsync", fsync)
    for act in (lambda: write_text(tmp_path / "a.txt", "new"), lambda: new_folder(tmp_path / "run")):
        with pytest.raises(GlassformerError, match="no space left on the disk; nothing was replaced: free some space"):
            act()
    assert tree(tmp_path) == {"a.txt": "old"}


@pytest.mark.parametrize("name", ["ENOSPC EDQUOT", "EFBIG", "EACCES EPERM EROFS", "ENOTDIR", "EISDIR", "ENOTEMPTY"])
def test_refusals_of_the_system_are_one_line(name: str):
    lines = set()
    for number in (getattr(errno, word) for word in name.split()):
        with pytest.raises(GlassformerError, match=r"^/some/where: [^\n]+$") as error, disk_errors("/some/where"):
            raise OSError(number, os.strerror(number))
        lines.add(str(error.value))
        assert isinstance(error.value.__cause__, OSError)
    assert len(lines) == 1
    for kind in (FileNotFoundError, TimeoutError, ValueError):  # others pass as they are
        with pytest.raises(kind), disk_errors("/some/where"):
            raise kind("something else")
