"""Node and the packages of tests/browser/js: TypeScript and axe-core, at the versions of its package-lock.json."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

JS = Path(__file__).with_name("js")
SOURCES = Path(__file__).parents[2] / "src/glassformer"
WEB = (SOURCES / "server/web", SOURCES / "figures/web")
NEEDS_NODE = "needs Node.js 20 or newer: apt-get install nodejs npm"


@functools.cache
def node() -> str:
    """The path of node; the test is skipped where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip(NEEDS_NODE)
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(NEEDS_NODE)
    return found


@functools.cache
def package(name: str) -> Path:
    """The folder of an npm package, installed once; the test is skipped where that cannot be done."""
    node()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(NEEDS_NODE)
    with open(Path(tempfile.gettempdir()) / "glassformer-npm.lock", "w") as lock:  # several pytest processes
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        installed = JS / "node_modules/.package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < (JS / "package-lock.json").stat().st_mtime:
            done = subprocess.run([npm, "ci", "--ignore-scripts"], cwd=JS, capture_output=True, text=True)
            if done.returncode:
                pytest.skip("needs the npm packages of tests/browser/js: npm ci failed there")
    return JS / "node_modules" / name


def modules(folder: Path) -> Path:
    """A copy of the page's modules that node imports as such."""
    for web in WEB:
        shutil.copytree(web, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder
