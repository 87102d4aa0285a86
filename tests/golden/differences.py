"""Compare two records: every difference that no bound of `cases.BOUNDS` covers is printed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases

SHOWN = 12  # differences printed in full for each case
MISSING = "(nothing)"


def compare(a: Path, b: Path, parts: list[str]) -> int:
    """0: equal but for what bounds allow; 1: they differ, and standard output says where."""
    differing = compared = 0
    for part in parts:
        files = a / f"{part}.json", b / f"{part}.json"
        if not all(file.exists() for file in files):
            print(f"{part}: not recorded on {' and '.join(str(f.parent) for f in files if not f.exists())}")
            differing += 1
            continue
        old, new = (json.loads(file.read_text()) for file in files)
        old = _renamed(part, old)
        compared += 1
        for case in sorted({*old, *new}):
            found = list(_differences(f"{part}/{case}", old.get(case, MISSING), new.get(case, MISSING)))
            found, bounded = [d for d in found if not _allowed(d)], len(found)
            if found:
                differing += 1
                _show(f"{part}/{case}", found)
            elif bounded:
                print(f"{part}/{case}: {bounded} differences within their bounds")
    print(f"{differing} cases differ in {compared} parts" if differing else f"equal: {compared} parts")
    return int(differing > 0)


def _show(case: str, found: list[tuple[str, Any, Any]]) -> None:
    print(f"{case}: {len(found)} differences")
    for path, old, new in found[:SHOWN]:
        print(f"    {path[len(case) + 1 :] or '.'}: {_short(old)} -> {_short(new)}")
    if len(found) > SHOWN:
        print(f"    ... and {len(found) - SHOWN} more")
    sizes = [(size, path) for path, old, new in found if (size := _relative(old, new)) is not None]
    if sizes:
        size, path = max(sizes)
        print(f"    the largest difference of a number: {size:.1e} of its size, at {path[len(case) + 1 :]}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 110 else f"{text[:107]}..."


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        refused = "exit" in old and old["exit"] == new.get("exit")  # in whatever words
        for key in sorted({*old, *new} - ({"message"} if refused else set())):
            yield from _differences(f"{path}/{key}", old.get(key, MISSING), new.get(key, MISSING))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}/{i}", *pair)
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _relative(old: Any, new: Any) -> float | None:
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in (old, new)):
        return None
    return abs(old - new) / max(abs(old), abs(new), 1e-9)


def _allowed(difference: tuple[str, Any, Any]) -> bool:
    path, old, new = difference
    for pattern, bound, _ in cases.BOUNDS:
        if re.fullmatch(pattern, path):
            size = _relative(old, new)
            if math.isinf(bound) or (size is not None and size <= bound):
                return True
    return False


def _renamed(path: str, value: Any) -> Any:
    """An old record with the keys that `cases.RENAMED` knows by their new names."""
    if isinstance(value, list):
        return [_renamed(f"{path}/{i}", each) for i, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    renamed = {}
    for key, each in value.items():
        here = f"{path}/{key}"
        matches = ((re.fullmatch(pattern, here), new) for pattern, new in cases.RENAMED.items())
        name = next((match.expand(new) for match, new in matches if match), key)
        renamed[name] = _renamed(here, each)
    return renamed
