"""Our own form, for what no family elsewhere can express. It loads with this package alone."""

from __future__ import annotations

from typing import Any

from glassformer import plugins
from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family
from glassformer.hub.families.weight_table import Tensors
from glassformer.layers import ACTIVATIONS, NORMS, POSITIONS
from glassformer.models import MODELS, kind_of, stacks_of


def functions_of(c: Any) -> list[Any]:
    """What a configuration names out of the registries of layers."""
    named = (("activation", ACTIVATIONS), ("norm", NORMS), ("positions", POSITIONS))
    return [table[getattr(h, field)] for h in stacks_of(c) for field, table in named if field in type(h).model_fields]


class Glassformer(Family):
    """`glassformer`: the kind of the model, its configuration and its tensors as they are."""

    model_type = "glassformer"
    configuration = None
    base_prefix = ""

    def can_represent(self, c: Any) -> bool:
        return True

    def write_config(self, c: Any) -> dict[str, Any]:
        kind = kind_of(c)
        name = MODELS[kind][1].__name__
        words = {"architectures": [f"Glassformer{name}"], "kind": kind, "config": c.model_dump(mode="json")}
        modules = plugins.modules_of([*MODELS[kind], *functions_of(c)])
        return {**words, **({"plugins": modules} if modules else {})}

    def read_config(self, given: dict[str, Any]) -> Any:
        modules = given.get("plugins")
        if modules or given.get("kind") not in MODELS:
            plugins.load_installed()
        if isinstance(modules, list) and (missing := plugins.needed(map(str, modules), "this model")):
            raise ModelFolderError(missing)
        if "decoder" in given:  # before there were other kinds
            return MODELS["decoder"][0].make(**given["decoder"])
        kind = given["kind"]
        if kind not in MODELS:
            raise ModelFolderError(plugins.unknown("kind", str(kind), MODELS))
        return MODELS[kind][0].make(**given["config"])

    def names(self, c: Any) -> set[str]:
        return set()  # they are those of the model itself

    def write_tensors(self, ours: Tensors, c: Any) -> Tensors:
        return ours

    def read_tensors(self, theirs: Tensors, c: Any) -> Tensors:
        return theirs
