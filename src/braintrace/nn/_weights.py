"""Weights that were saved, put into a model."""

import ast
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import brainstate
import brainunit
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core._domains import array, described
from ..core._errors import UsageError
from ..operators._units import split


def load_weights(model: brainstate.nn.Module, weights: Mapping[Any, PyTree]) -> None:
    """Set the parameters of a model to saved values, whole or not at all.

    Layers of `braintrace.nn` have the parameters of the PyPI package's (0.2.6): names, shapes and
    order of gates. What was saved of a model there fits the same model here.

    Args:
        model: a brainstate module.
        weights: values by path, in any form in which brainstate gives them: a flat dict of paths
            (tuples, or strings such as 'cell.Wz.weight'), `model.states(ParamState)`, its
            `to_dict_values()`, or the nested dict of `braintools.file.msgpack_load`. Statistics
            (`BatchState`) in it are set, too, and hidden states passed over.

    A value is converted to the parameter's dtype and unit.

    Raises:
        UsageError: when a parameter is missing, an entry has no place in the model, or a shape,
            dtype or unit does not fit; it names the paths, and the model is as it was.

    >>> import brainstate, braintrace
    >>> trained, model = (braintrace.nn.GRUCell(3, 4) for _ in range(2))
    >>> saved = trained.states(brainstate.ParamState).to_dict_values()
    >>> sorted(saved)
    [('Wh', 'weight'), ('Wr', 'weight'), ('Wz', 'weight')]
    >>> braintrace.nn.load_weights(model, saved)
    >>> bool((model.Wz.weight.value["weight"] == trained.Wz.weight.value["weight"]).all())
    True
    """
    if not isinstance(model, brainstate.nn.Module):
        raise UsageError("Not a model.", got=described(model), expected="a brainstate module")
    if not isinstance(weights, Mapping):
        expected = "a dict of values by path, such as model.states(brainstate.ParamState)"
        raise UsageError("Invalid weights.", got=described(weights), expected=expected)
    saved, missing, places, fitted = dict(_leaves(weights)), [], set(), []
    states: Mapping[Any, Any] = cast(Any, model.states())
    for path, state in states.items():
        leaves, form = jax.tree_util.tree_flatten_with_path(state.value, is_leaf=_has_unit)
        values = {".".join([*map(str, path), *_keys(at)]): leaf for at, leaf in leaves}
        places |= values.keys()
        if isinstance(state, brainstate.ParamState):
            missing += [name for name in values if name not in saved]
        if not isinstance(state, brainstate.ShortTermState):
            fitted.append((state, form, values))
    unknown = [name for name in saved if name not in places]
    if missing or unknown:
        raise UsageError(
            "The weights are not those of this model.",
            got="; ".join([*_listed("no value for", missing), *_listed("values for", unknown)]),
            expected="a value for each parameter of the model, and no others",
            do="build the model with the layers and arguments of the one that was saved",
        )
    new = [
        (state, form.unflatten([_fitted(n, saved.get(n, v), v) for n, v in values.items()]))
        for state, form, values in fitted
    ]
    for state, value in new:
        state.value = value


def _leaves(saved: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each array or quantity with its path as a string."""
    if isinstance(saved, brainstate.State | brainstate.TreefyState):
        saved = saved.value
    if isinstance(saved, list | tuple):
        saved = dict(enumerate(saved))
    if isinstance(saved, Mapping) and not saved.keys() >= _QUANTITY:
        for key, value in saved.items():
            yield from _leaves(value, (*path, *_parts(key)))
    elif saved is not None:
        yield ".".join(path), saved


def _parts(key: Any) -> list[str]:
    """The parts of a key: of a path, of its `str`, as files hold it, or of one attribute."""
    if isinstance(key, str) and key.startswith("("):
        with contextlib.suppress(ValueError, SyntaxError):
            key = ast.literal_eval(key)
    return [str(part) for part in (key if isinstance(key, tuple) else (key,))]


def _keys(path: Any) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


#: What a file of braintools holds of a quantity.
_QUANTITY = {"mantissa", "dim", "scale", "base", "factor"}


def _has_unit(value: Any) -> bool:
    return isinstance(value, brainunit.Quantity)


def _fitted(name: str, saved: Any, value: Any) -> Any:
    """The saved value in the dtype and unit of the present one."""
    if isinstance(saved, Mapping):
        parts: dict[str, Any] = {k: float(saved[k]) for k in ("scale", "base", "factor")}
        unit = brainunit.Unit(brainunit.get_or_create_dimension(list(saved["dim"])), **parts)
        saved = brainunit.Quantity(saved["mantissa"], unit=unit)
    number, of_saved = (array(name, saved), None) if not _has_unit(saved) else split(saved)
    old, unit = split(value)
    if brainunit.get_dim(saved) != brainunit.get_dim(value):
        got, expected = str(of_saved or "no unit"), str(unit or "no unit")
        raise UsageError(f"Invalid unit of {name}.", got=got, expected=expected)
    if np.shape(number) != np.shape(old):
        raise UsageError(
            f"Invalid shape of {name}.",
            got=np.shape(number),
            expected=np.shape(old),
            do="build the model with the arguments of the one that was saved",
        )
    if _kind(number) > _kind(old):
        raise UsageError(f"Invalid dtype of {name}.", got=number.dtype, expected=old.dtype)
    if unit is not None:
        return brainunit.Quantity(saved.to_decimal(unit).astype(old.dtype), unit=unit)
    return number.astype(old.dtype)


def _kind(value: jax.Array) -> int:
    """0 for whole numbers and booleans, 1 for real, 2 for complex numbers."""
    return sum(jnp.issubdtype(value.dtype, kind) for kind in (jnp.inexact, jnp.complexfloating))


def _listed(word: str, names: list[str]) -> list[str]:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return [f"{word} {shown}"] if names else []
