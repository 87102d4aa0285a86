"""A family's tensors as the parameters of one of our models."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family
from glassformer.hub.families.weight_table import Tensors
from glassformer.hub.tensor_names import match_names
from glassformer.models import build_model, stacks_of
from glassformer.models.counts import ShapesOnly


def model_of(family: Family, config: Any, theirs: Tensors, where: str | os.PathLike[str]) -> Any:
    """The model of this configuration, in eval mode, with a family's tensors as its parameters.

    Args:
        where: what they were read from, for the errors.

    Raises:
        ModelFolderError: a tensor is missing, left over, of another shape, or holds no floating-point numbers.
    """
    check_count(where, config, sum(len(tensor) if tensor.dim() > 2 else 1 for tensor in theirs.values()))
    try:
        theirs = match_names(theirs, family.names(config), family.base_prefix)
        ours = family.read_tensors(theirs, config)
    except KeyError as error:
        raise ModelFolderError(f"{where}: tensor {error.args[0]} is missing; copy the weights again, whole") from None
    except ModelFolderError as error:
        raise ModelFolderError(f"{where}: {error}") from None
    with ShapesOnly():  # the loaded tensors then become the parameters, nothing is initialised
        model = build_model(config)
    tied = tied_names(model)
    expected = {name for name in model.state_dict() if name not in tied}
    ours = {n: t for n, t in ours.items() if n in expected or t.any()}  # drop the zero biases of a bias-free model
    _check(where, model, expected, ours)
    model.load_state_dict({**ours, **{name: ours[first] for name, first in tied.items()}}, assign=True)
    for name, first in tied.items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(first))
    return model.eval()


def tied_names(model: nn.Module) -> dict[str, str]:
    """Every further name of a parameter that has several, and its first."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in every if first[id(parameter)] != name}


def untied_state(model: nn.Module, state: Tensors | None = None) -> Tensors:
    """The state dict of a model (or this one of its), with each tied tensor under its first name alone."""
    tied = tied_names(model)
    return {name: t for name, t in (model.state_dict() if state is None else state).items() if name not in tied}


def check_count(where: str | os.PathLike[str], config: Any, n_tensors: int) -> None:
    """Raise `ModelFolderError` for more layers and experts than tensors, before a million of them is built."""
    asked = sum(getattr(part, "n_layer", 0) * max(1, getattr(part, "n_expert", 0)) for part in stacks_of(config))
    if asked > n_tensors:
        raise ModelFolderError(f"{where}: config.json asks for {asked:,} layers or experts, of {n_tensors} tensors")


def _check(where: str | os.PathLike[str], model: nn.Module, expected: set[str], ours: dict[str, Tensor]) -> None:
    """Every tensor is there, of the right shape, and floating; buffers (counts of n-grams) are what they are."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name in expected}
    for name in [*expected - ours.keys(), *ours.keys() - expected, *shapes]:
        asks, holds = shapes.get(name), tuple(ours[name].shape) if name in ours else None
        if asks != holds:
            raise ModelFolderError(f"{where}: config.json asks for {name} of shape {asks}, the weights hold {holds}")
        if name in shapes and not ours[name].is_floating_point():
            kind = ours[name].dtype
            raise ModelFolderError(f"{where}: {name} holds {kind}; only floating-point weights can be read")
