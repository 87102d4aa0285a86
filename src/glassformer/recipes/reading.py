"""Reading recipes: built-in ones, TOML files, and settings laid over them. Each mistake is one line."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glassformer import plugins
from glassformer.errors import UsageError, did_you_mean, known_names
from glassformer.files import disk_errors
from glassformer.models import MODELS, config_fields
from glassformer.models.mistakes import first_mistake
from glassformer.recipes.schema import SECTIONS, Recipe, homes_of, section_type
from glassformer.tasks import TASKS
from glassformer.text_files import decode
from glassformer.training.migrations import SECTION_NAMES, rename_sections

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLAGS = {"source": "data"}  # where an option has another name than the key


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("glassformer.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def read_recipe(
    name_or_path: str | Mapping[str, Any] | None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """A built-in recipe by name, a `.toml` file by path, or tables as a file has them (None: an empty recipe), with
    settings laid over it.

    Args:
        overrides: `section.key=value`. flags: the same as `{section: {key: value}}`; a None is left out.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key, a value that does not fit, a setting given in both ways.
    """
    plugins.load_installed()
    data: dict[str, Any] = {}
    asked: set[str] = set()
    overrides = list(overrides)
    if name_or_path is not None:
        if isinstance(name_or_path, str):
            data, before = read_tables(name_or_path), f"{find_recipe(name_or_path)}: "
        else:
            data, before = copy.deepcopy(dict(name_or_path)), ""
        if "stage" in data:
            raise UsageError(f"{before}a recipe of several stages, which glassformer train, resume and plan take")
        try:
            _validated(data)
        except UsageError as error:
            raise UsageError(f"{before}{error}") from None
        if data.get("training", {}).get("start_from"):
            asked = {f"{home}.{key}" for home in SECTIONS for key in data.get(home, {})}
    for override in overrides:
        section, key, value = parse_setting(override)
        if (flags or {}).get(section, {}).get(key) is not None:
            raise UsageError(f"{section}.{key} is given twice, as --{FLAGS.get(key, key)} and as {override}; use one")
        data.setdefault(section, {})[key] = value
        if (section, key) == ("model", "kind") and value in MODELS:  # then a shape made for another kind is none
            known = {"kind", *config_fields(value)}
            own = [parse_setting(other)[1] for other in overrides if other.startswith("model.")]
            data["model"] = {k: v for k, v in data["model"].items() if k in known or k in own}
    for section, fields in (flags or {}).items():
        data.setdefault(section, {}).update({key: value for key, value in fields.items() if value is not None})
    recipe = _validated(data)
    _check_read_keys(recipe)
    asked |= {".".join(parse_setting(override)[:2]) for override in overrides}
    asked |= {f"{home}.{key}" for home, fields in (flags or {}).items() for key in fields if fields[key] is not None}
    recipe._asked = frozenset(asked)
    return recipe


def read_tables(name_or_path: str) -> dict[str, Any]:
    """The tables of a recipe's file, unchecked, with its name.

    Raises:
        UsageError: no such recipe, or not TOML.
    """
    path = find_recipe(name_or_path)
    return {"name": path.stem, **_read_toml(path)}


def _check_read_keys(r: Recipe) -> None:
    """Refuse a key of [data] or [tokenizer] that the task does not read: it would change nothing."""
    known = ("source", *TASKS[r.task.kind].data_keys)
    for name, field in type(r.data).model_fields.items():
        if name not in known and getattr(r.data, name) != field.default:
            kind = r.task.kind
            raise UsageError(f"data.{name} is not read by task.kind={kind} ({', '.join(known)} are); leave it out")
    if r.tokenizer.specials is not None and not TASKS[r.task.kind].learns_specials:
        raise UsageError(f"tokenizer.specials is not read by task.kind={r.task.kind}, which has its own; leave it out")
    if r.tokenizer.specials is not None and r.tokenizer.kind is None:
        raise UsageError("tokenizer.specials belongs to a tokenizer that is learned; add tokenizer.kind=bpe")


def changed_recipe(r: Recipe, overrides: Iterable[str], allowed: Collection[str]) -> Recipe:
    """A resolved recipe with other values for those of its keys that may still change.

    Raises:
        UsageError: an unknown key, a value that does not fit, or a key that may not change.
    """
    data = r.model_dump(exclude_none=True)
    given = [parse_setting(override) for override in overrides]
    for section, key, value in given:
        data[section][key] = value
    changed = _validated(data)
    for section, key, _ in given:
        if f"{section}.{key}" not in allowed:
            raise UsageError(
                f"{section}.{key} cannot change when a run is resumed ({', '.join(sorted(allowed))} can); "
                "start another run: glassformer train --data TEXT training.start_from=RUN"
            )
    return changed


def _read_toml(path: Path) -> dict[str, Any]:
    with disk_errors(path):
        content = path.read_bytes()
    try:
        return rename_sections(tomllib.loads(decode(content)), str(path))
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except tomllib.TOMLDecodeError as error:
        reason = f"not TOML: {str(error)[0].lower()}{str(error)[1:]}"
    advice = "mend it" if path.suffix == ".toml" else f"to train on it as a text: glassformer train --data {path}"
    raise UsageError(f"{path} is no recipe ({reason}); {advice}")


def _validated(data: dict[str, Any]) -> Recipe:
    """Raises one `UsageError` of one line about the first mistake."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        if not where:  # about more than one section: already one line in our words
            raise UsageError(first_mistake(error, Recipe)) from None
        elsewhere = [name for name in homes_of(where[-1]) if name != where[0]]
        if first["type"] == "extra_forbidden" and elsewhere:
            raise UsageError(f"unknown key {'.'.join(where)}; did you mean {elsewhere[0]}.{where[-1]}?") from None
        known = section_type(where[0]) if len(where) > 1 and where[0] in SECTIONS else Recipe
        raise UsageError(first_mistake(error, known)) from None


def find_recipe(name_or_path: str) -> Path:
    """The file of a built-in recipe, or the path itself.

    Raises:
        UsageError: there is neither.
    """
    known = builtin_recipes()
    if name_or_path in known:
        return known[name_or_path]
    if (path := Path(name_or_path)).is_file():
        return path
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, not a recipe; to train on the texts in it: glassformer train --data {path}"
        )
    beside = [str(path.parent / other.name) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    near = did_you_mean(name_or_path, [*known, *beside])
    hint = near if near.startswith("did") else known_names(known)
    raise UsageError(f"there is no recipe {name_or_path!r}; {hint}")


def parse_setting(override: str) -> tuple[str, str, Any]:
    """(section, key, value) of one `section.key=value`; the value is TOML, or plain text when it is none."""
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    section = SECTION_NAMES.get(section, section)
    if not equals or not dot or not key:
        homes = homes_of(name.strip())
        example = f"did you mean {homes[0]}.{name.strip()}?" if homes else "for example training.steps=500"
        raise UsageError(f"{override!r} is not of the form section.key=value; {example}")
    if section not in SECTIONS:
        raise UsageError(f"unknown section {section!r} in {override!r}; {did_you_mean(section, SECTIONS)}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return section, key, value
