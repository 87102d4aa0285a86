"""A file is fetched once, is the right one or is not kept, and an archive is read without being unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from glassformer import fetch as room
from glassformer.archives import read_member, read_members
from glassformer.errors import DataError
from glassformer.fetch import HttpsSource, IncludedSource, PackageSource, fetch

sys.path.insert(0, str(Path(__file__).parent / "data"))
from data_standins import server
from package_standins import write_deb

CONTENT = b"all the world's a stage\n" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def site():
    """A server of CONTENT at /file.txt that also misbehaves; the list holds the paths that were asked for."""
    asked: list[str] = []

    def answer(path, headers):
        asked.append(path)
        if path == "/moved":
            return 302, {"Location": "/file.txt"}, b""
        if path == "/moved-to-plain-http":
            return 302, {"Location": "http://example.com/file.txt"}, b""
        if path == "/short":
            return 200, {"Content-Length": str(len(CONTENT) + 5), "Connection": "close"}, CONTENT
        if path == "/file.txt":
            return 200, {}, CONTENT
        return 404, {}, b"no"

    with server(answer) as address:
        yield address, asked


def no_litter(tmp_path) -> bool:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_file_is_fetched_once_and_again_if_damaged_and_its_license_is_printed(site, capsys):
    address, asked = site
    source = HttpsSource(f"{address}/file.txt", SHA, "public domain")
    path = fetch(source)
    assert path.read_bytes() == CONTENT and path.name == "file.txt"
    assert "license: public domain" in capsys.readouterr().err
    assert fetch(source) == path and asked == ["/file.txt"] and capsys.readouterr().err == ""
    path.write_bytes(b"damaged")
    assert fetch(source).read_bytes() == CONTENT and len(asked) == 2
    assert "damaged since it was fetched" in capsys.readouterr().err
    assert fetch(HttpsSource(f"{address}/moved", SHA, "x"), quiet=True).read_bytes() == CONTENT


REFUSED = [
    ("/file.txt", {"sha256": "0" * 64}, f"the SHA-256 is {SHA} where {'0' * 64} was expected"),
    ("/file.txt", {"max_bytes": 100}, "larger than the 100 bytes"),
    ("/gone", {}, "the server answered 404"),
    ("/short", {}, "the connection broke off after"),
    ("/moved-to-plain-http", {}, r"http://example\.com/file\.txt: only https"),
    ("http://127.0.0.1:9/file.txt", {}, "no connection .*check the network"),
    ("http://example.com/a", {}, "only https"),
    ("ftp://example.com/a", {}, "only https"),
    ("file:///etc/passwd", {}, "only https"),
]


@pytest.mark.parametrize(("url", "changes", "message"), REFUSED)
def test_what_is_not_fetched_is_one_line_and_leaves_nothing(site, tmp_path, url, changes, message):
    url = site[0] + url if url.startswith("/") else url
    with pytest.raises(DataError, match=message) as shown:
        fetch(HttpsSource(url, **{"sha256": SHA, "license": "x", **changes}), quiet=True)
    assert "\n" not in str(shown.value) and no_litter(tmp_path)


def test_a_file_of_the_package_is_unpacked_once_and_checked(tmp_path):
    packed = tmp_path / "stage.txt.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    path = fetch(IncludedSource(packed, SHA, "public domain"))
    assert path.read_bytes() == CONTENT and path.name == "stage.txt" and tmp_path / "cache" in path.parents
    path.write_bytes(b"damaged")
    assert fetch(IncludedSource(packed, SHA, "public domain"), quiet=True).read_bytes() == CONTENT
    packed.unlink()
    assert fetch(IncludedSource(packed, SHA, "public domain")) == path, "it is read from the cache"


@pytest.mark.parametrize(
    "content",
    [None, b"no gzip", gzip.compress(CONTENT)[:-20], gzip.compress(b"another text")],
    ids=["missing", "no gzip", "cut short", "another text"],
)
def test_a_damaged_file_of_the_package_is_one_line_and_not_kept(tmp_path, content):
    packed = tmp_path / "stage.txt.gz"
    if content is not None:
        packed.write_bytes(content)
    with pytest.raises(DataError, match=r"stage\.txt\.gz: (it is missing or damaged .*install|the SHA-256 is)"):
        fetch(IncludedSource(packed, SHA, "x"), quiet=True)
    assert no_litter(tmp_path)


def test_a_login_does_not_follow_a_redirect_to_another_host():
    seen = {}

    def elsewhere(path, headers):
        seen.update(headers)
        return 200, {}, b"ok"

    with server(elsewhere) as other, server(lambda p, h: (302, {"Location": f"{other}/x"}, b"")) as address:
        room.open_url(f"{address}/a", {"Authorization": "Bearer secret", "Range": "bytes=0-1"}).close()
    assert seen["Range"] == "bytes=0-1" and "Authorization" not in seen


# ---- packages: errors of the clients, reported in one line ----

ANSWERS = {
    "hash": ("  Expected sha256 aa11\n       Got        bb22\n", "the SHA-256 is bb22 where aa11 was expected"),
    "offline": ("Retrying: NewConnectionError(...)\nERROR: No matching distribution found", "cannot be reached"),
    "absent": ("ERROR: No matching distribution found for x", "does not have it"),
    "no pip": ("/usr/bin/python: No module named pip", "pip is not installed; run: .* -m ensurepip"),
    "other": ("line one\nsomething broke\n", "pip failed: something broke"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_failing_client_is_reported_in_one_line(monkeypatch, tmp_path, case):
    output, message = ANSWERS[case]
    done = subprocess.CompletedProcess([], 1, "", output)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    with pytest.raises(DataError, match=message) as shown:
        fetch(PackageSource("x", "1.0", "aa11", "MIT"), quiet=True)
    assert "\n" not in str(shown.value) and no_litter(tmp_path)


def test_the_clients_are_asked_to_download_and_nothing_else(tmp_path):
    pip = room._client_command(PackageSource("x", "1.0", "ab", "MIT"), tmp_path)
    assert {"--no-deps", "--only-binary", "--require-hashes"} <= set(pip) and "download" in pip
    assert (tmp_path / "requirement.txt").read_text() == "x==1.0 --hash=sha256:ab\n"
    npm = room._client_command(PackageSource("x", "1.0", None, "MIT", client="npm"), tmp_path)
    assert npm[:2] == ["npm", "pack"] and "--ignore-scripts" in npm and npm[-1] == "x@1.0"
    assert room._client_command(PackageSource("x", None, None, "MIT", client="apt"), tmp_path)[:2] == [
        "apt-get",
        "download",
    ]


def test_a_source_archive_comes_by_its_link_and_nothing_in_it_runs(monkeypatch, capsys):
    def answer(path, headers):
        if path == "/simple/my-package/":
            links = '<a href="../../files/my_package-1.0-py3-none-any.whl#sha256=00">w</a>'
            return 200, {}, (links + '<a href="../../files/my_package-1.0.tar.gz#sha256=00">s</a>').encode()
        return (200, {}, CONTENT) if path == "/files/my_package-1.0.tar.gz" else (404, {}, b"")

    with server(answer) as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        path = fetch(PackageSource("My.Package", "1.0", SHA, "MIT", sdist=True))
        assert path.name == "my_package-1.0.tar.gz" and path.read_bytes() == CONTENT
        with pytest.raises(DataError, match="does not have its source archive"):
            fetch(PackageSource("My.Package", "2.0", SHA, "MIT", sdist=True))
    with pytest.raises(DataError, match="needs its version and SHA-256"):
        fetch(PackageSource("My.Package", "1.0", None, "MIT", sdist=True))


# ---- archives --------------------------------------------------------------------------------------------------------


def make_tar(path_or_file, mode: str) -> None:
    with tarfile.open(**{"name" if isinstance(path_or_file, Path) else "fileobj": path_or_file}, mode=mode) as archive:
        for name, content in (("./usr/a.txt", b"hello"), ("./usr/b.txt", b"world" * 100)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def make_deb(path: Path) -> None:
    data = io.BytesIO()
    make_tar(data, "w:xz")
    write_deb(path, data.getvalue())


@pytest.fixture(params=["zip", "tar.gz", "deb"])
def archive(request, tmp_path):
    path = tmp_path / f"archive.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("usr/a.txt", b"hello")
            file.writestr("usr/b.txt", b"world" * 100)
    elif request.param == "tar.gz":
        make_tar(path, "w:gz")
    else:
        make_deb(path)
    return path


def test_archives_are_read_in_place(archive):
    names = [name for name, _ in read_members(archive, lambda name: True)]
    assert names == ["usr/a.txt", "usr/b.txt"]  # links are not followed and not listed
    assert read_member(archive, "usr/a.txt") == b"hello"
    with pytest.raises(DataError, match=r"has no file 'usr/link' inside"):
        read_member(archive, "usr/link")
    with pytest.raises(DataError, match="is larger than 99 bytes"):
        read_member(archive, "usr/b.txt", limit=99)


def test_damaged_archives_are_reported(archive):
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="delete it and fetch again"):
        read_member(archive, "usr/b.txt")
    archive.write_bytes(b"just text")
    with pytest.raises(DataError, match="not a readable archive"):
        read_member(archive, "usr/a.txt")
    with pytest.raises(DataError, match="no such file"):
        read_member(archive.parent / "absent.zip", "usr/a.txt")
