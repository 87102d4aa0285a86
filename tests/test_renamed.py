"""A script written for version 0.1 still finds its names: every one that its packages published."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest

import glassformer as gf
from glassformer import renamed

NAMES = json.loads((Path(__file__).parent / "golden" / "names-0.1.json").read_text())


@pytest.fixture
def forgotten(monkeypatch):
    """Modules under old names are imported as if for the first time."""
    for name in [name for name in sys.modules if name.split(".")[1:2] and name.split(".")[1] in renamed.MODULES]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_of_0_1_is_there_or_names_what_to_do(module: str):
    """A name that is missing here was renamed: add a line to `renamed.NAMES`, and `keep_old_names` to its package."""
    package = importlib.import_module(module)
    for name in NAMES[module]:
        try:
            assert getattr(package, name) is not None
        except AttributeError as error:
            assert f"{name} is gone; " in str(error)


def test_a_package_that_moved_has_its_names_and_gives_the_new_one(forgotten):
    with pytest.warns(DeprecationWarning, match="glassformer.objectives is called glassformer.tasks now"):
        from glassformer.objectives import OBJECTIVES
    from glassformer import tasks

    assert OBJECTIVES is tasks.OBJECTIVES
    with pytest.warns(DeprecationWarning, match="glassformer.interchange.folder is called glassformer.hub.folder now"):
        folder = importlib.import_module("glassformer.interchange.folder")
    assert folder.save is gf.save


def test_a_name_that_changed_is_the_new_one():
    import glassformer.hub as hub

    with pytest.warns(DeprecationWarning, match="glassformer.hub.family_that_expresses .*glassformer.hub.family_for"):
        assert hub.family_that_expresses is hub.family_for


@pytest.mark.parametrize("module", ["glassformer.interchanges", "glassformer.nothing", "glassformer.hub.nothing"])
def test_what_never_was_is_missing_as_ever(module: str, forgotten):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{module}'"):
        importlib.import_module(module)
    with pytest.raises(ModuleNotFoundError, match=r"glassformer\.interchange\.nothing .*glassformer\.hub\.nothing"):
        importlib.import_module("glassformer.interchange.nothing")


def test_every_new_name_is_there():
    for new in [*renamed.MODULES.values(), *(new for new in renamed.NAMES.values() if " " not in new)]:
        home, _, name = f"glassformer.{new}".rpartition(".")
        assert inspect.ismodule(sys.modules.get(f"{home}.{name}")) or hasattr(importlib.import_module(home), name), new


def test_methods_of_a_configuration_work_under_their_old_names():
    from toys import toy_config

    from glassformer.models import parameter_count

    config = toy_config()
    with pytest.warns(DeprecationWarning, match=r"ModelConfig is called glassformer\.models\.parameter_count"):
        assert config.parameter_count() == parameter_count(config)
    with pytest.warns(DeprecationWarning, match="is called layer_masks"):
        assert config.layer_patterns() == config.layer_masks()
    assert "parameter_count" not in type(config).model_fields


def test_a_model_of_a_plugin_may_list_its_answers_in_a_tuple(monkeypatch):
    """As docs/extending.md of 0.1 wrote it."""
    from toys import toy_model

    from glassformer.models import answers_of

    model = toy_model()
    monkeypatch.setattr(type(model), "answers", ("next_token",))
    assert answers_of(model.config) == {"next_token"} and model.writes
    monkeypatch.setattr(type(model), "answers", ("class",))
    assert not model.writes


def test_a_function_takes_arguments_under_their_old_names():
    @renamed.old_arguments(tell="log")
    def asked(number: int, *, log: str = "") -> tuple[int, str]:
        return number, log

    assert asked(1, log="a") == (1, "a")
    with pytest.warns(DeprecationWarning, match=r"\(tell=\) is called log= now"):
        assert asked(2, tell="b") == (2, "b")
    with pytest.raises(TypeError, match="tell= and log="), pytest.warns(DeprecationWarning):
        asked(3, tell="c", log="d")
    with pytest.raises(TypeError, match="unexpected keyword argument 'say'"):
        asked(4, say="e")
