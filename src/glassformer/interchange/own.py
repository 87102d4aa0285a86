"""Our own form, for what no family elsewhere can express. It loads with this package alone."""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.interchange.family import Family
from glassformer.interchange.tables import Tensors
from glassformer.models import MODELS, kind_of


class Glassformer(Family):
    """`glassformer`: the kind of the model, its configuration and its tensors as they are."""

    model_type = "glassformer"
    configuration = None
    base_prefix = ""

    def expresses(self, c: Any) -> bool:
        return True

    def write_config(self, c: Any) -> dict[str, Any]:
        kind = kind_of(c)
        name = MODELS[kind][1].__name__
        return {"architectures": [f"Glassformer{name}"], "kind": kind, "config": c.model_dump(mode="json")}

    def read_config(self, given: dict[str, Any]) -> Any:
        if "decoder" in given:  # before there were other kinds
            return MODELS["decoder"][0].make(**given["decoder"])
        kind = given["kind"]
        if kind not in MODELS:
            raise ModelFolderError(
                f"kind {kind!r} is not one that glassformer knows; {did_you_mean(str(kind), MODELS)}"
            )
        return MODELS[kind][0].make(**given["config"])

    def names(self, c: Any) -> set[str]:
        return set()  # they are those of the model itself

    def write_tensors(self, ours: Tensors, c: Any) -> Tensors:
        return ours

    def read_tensors(self, theirs: Tensors, c: Any) -> Tensors:
        return theirs
