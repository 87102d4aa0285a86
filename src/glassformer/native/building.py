"""The compiled part: built once by the machine's C++ compiler, checked, and kept in the cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from glassformer.files import cache_folder

SOURCE = Path(__file__).with_name("decode.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.hpp"))
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"),
)
"""No `-ffast-math`, which changes how the whole process treats tiny numbers, and no fused products and sums, with which
a token would not be the same alone and in a batch."""


_P, _I, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
SIGNATURES = {
    "glassformer_multiply": (_P, _P, _I, _P, _I, _I, _I),
    "glassformer_pack": (_P, _I, _I, _I, _P, _I),
    "glassformer_draw": (_P, _P, _I, _I, _F, _I, _P, _P, _P, _P, _I),
    "glassformer_run": (_P, _P, _P, _I),
}
"""The functions of `decode.cpp`; the last number is that of threads."""


def opened(path: Path) -> ctypes.CDLL:
    """A compiled library with the types of its functions."""
    compiled = ctypes.CDLL(str(path))
    for name, types in SIGNATURES.items():
        getattr(compiled, name).argtypes = types
    return compiled


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None where there is no compiler or what it makes does not work.

    `$CXX` names the compiler (else `g++` or `c++`); `GLASSFORMER_NATIVE=0` does without. The first call on a machine
    compiles for some seconds; later calls open it from the cache folder.
    """
    if os.environ.get("GLASSFORMER_NATIVE") == "0":
        return None
    found = (shutil.which(name) for name in (os.environ.get("CXX"), "g++", "c++") if name)
    compiler = next(filter(None, found), None)
    if compiler is None:
        return None
    try:
        return opened(_compiled(compiler))
    except (OSError, subprocess.SubprocessError):
        return None


def _compiled(compiler: str) -> Path:
    source = b"".join(path.read_bytes() for path in (SOURCE, *HEADERS))
    key = hashlib.sha256(source + " ".join((compiler, *FLAGS, _processor())).encode()).hexdigest()[:16]
    target = cache_folder() / "native" / f"decode-{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "decode.so"
            command = [compiler, *FLAGS, str(SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            os.replace(made, target)
    return target


def _processor() -> str:
    """What `-march=native` depends on: a home directory may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))]
    return " ".join(sorted({platform.machine(), platform.processor(), *kept}))
