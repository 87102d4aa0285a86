"""Files that are whole or not there: a failed write leaves the old content and no litter."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
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


def test_a_failed_block_leaves_the_old_file_and_no_litter(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the ne")
        1 / 0  # noqa: B018
    assert tree(tmp_path) == {"a.txt": "old"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "run", replace=True) as temporary:
            (temporary / f"{text}.txt").write_text(text)
            (temporary / "sub").mkdir()
    assert tree(tmp_path) == {"run": "/", "run/new.txt": "new", "run/sub": "/"}


def test_a_failed_block_leaves_the_old_folder_and_no_litter(tmp_path: Path):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "run", replace=True) as temporary:
        (temporary / "b.txt").write_text("new")
        raise KeyboardInterrupt
    assert tree(tmp_path) == {"run": "/", "run/a.txt": "old"}


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


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_never_takes_the_place_of_a_file(tmp_path: Path, replace: bool):
    """Somebody's notes stand where a run should go: they stay."""
    write_text(tmp_path / "run", "notes")
    with pytest.raises(GlassformerError) as error, atomic_folder(tmp_path / "run", replace=replace):
        raise AssertionError("the work would be for nothing: fail before it")
    assert str(error.value) == f"{tmp_path}/run: this is a file, and a folder is needed; choose another path"
    assert tree(tmp_path) == {"run": "notes"}


def test_a_folder_that_holds_something_is_not_replaced_unasked(tmp_path: Path):
    write_text(tmp_path / "run" / "a.txt", "old")
    with pytest.raises(GlassformerError) as error, atomic_folder(tmp_path / "run") as temporary:
        (temporary / "b.txt").write_text("new")
    assert str(error.value) == f"{tmp_path}/run: something is already there; choose another place or move it away"
    assert tree(tmp_path) == {"run": "/", "run/a.txt": "old"}


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(GlassformerError) as error:
        write_text(tmp_path / "a.txt", "new")
    assert str(error.value) == f"{tmp_path}/a.txt: this is a folder, and a file is needed; choose another path"
    assert tree(tmp_path) == {"a.txt": "/"}


def test_a_place_below_a_file_is_refused_in_one_line(tmp_path: Path):
    """The unwritable folder that stops root as well."""
    write_text(tmp_path / "notes", "mine")
    for act in (lambda p: write_text(p, "new"), lambda p: atomic_folder(p).__enter__()):
        with pytest.raises(GlassformerError) as error:
            act(tmp_path / "notes" / "run")
        assert str(error.value) == f"{tmp_path}/notes/run: this is a file, and a folder is needed; choose another path"
    assert tree(tmp_path) == {"notes": "mine"}


def test_a_disk_that_is_full_at_the_last_moment(tmp_path: Path, monkeypatch):
    """Many file systems hand out space when data is flushed, so `fsync` is where a full disk shows."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(GlassformerError) as error:
        write_text(tmp_path / "a.txt", "new")
    assert str(error.value) == (
        f"{tmp_path}/a.txt: no space left on the disk; nothing was replaced: free some space and run again"
    )
    with pytest.raises(GlassformerError, match="no space left"), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a").write_text("new")
    assert tree(tmp_path) == {"a.txt": "old"}


def test_a_disk_that_is_really_full(tmp_path: Path):
    """A disk of 64 KiB in a name space of its own; needs root, as CI has it."""
    unshare, mount = shutil.which("unshare"), f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"
    if not unshare or subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    program = (
        "import os, sys; from glassformer.errors import GlassformerError; from glassformer.files import write_text\n"
        "folder = sys.argv[1]; write_text(folder + '/a.txt', 'old')\n"
        "try: write_text(folder + '/a.txt', 'new' * 100_000)\n"
        "except GlassformerError as error: print(error)\n"
        "print(os.listdir(folder), open(folder + '/a.txt').read())"
    )
    line = [unshare, "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, program]
    written = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert written == [
        f"{tmp_path}/a.txt: no space left on the disk; nothing was replaced: free some space and run again",
        "['a.txt'] old",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on the disk; nothing was replaced: free some space and run again"),
        (errno.EDQUOT, "no space left on the disk; nothing was replaced: free some space and run again"),
        (errno.EFBIG, "larger than the disk or a limit allows; nothing was replaced: choose another place"),
        (errno.EACCES, "the folder is not writable; choose another place (--out) or change its permissions"),
        (errno.EROFS, "the folder is not writable; choose another place (--out) or change its permissions"),
        (errno.ENOTDIR, "this is a file, and a folder is needed; choose another path"),
        (errno.EISDIR, "this is a folder, and a file is needed; choose another path"),
        (errno.ENOTEMPTY, "something is already there; choose another place or move it away"),
    ],
)
def test_refusals_of_the_system_are_one_line(number: int, text: str):
    with pytest.raises(GlassformerError) as error, disk_errors("/some/where"):
        raise OSError(number, os.strerror(number))
    assert str(error.value) == f"/some/where: {text}"
    assert isinstance(error.value.__cause__, OSError)


def test_a_name_that_is_too_long(tmp_path: Path):
    with pytest.raises(GlassformerError, match=r"not a usable name \(File name too long\); choose another one$"):
        write_text(tmp_path / ("a" * 300), "new")


def test_other_errors_pass_through_as_they_are():
    for kind in (FileNotFoundError, TimeoutError, ValueError):
        with pytest.raises(kind), disk_errors("/some/where"):
            raise kind("something else")


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
