"""Everything that depends on the version of JAX. No other file touches JAX's representation of
programs.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core
from jax.extend.core import primitives
from jax.typing import DTypeLike

Literal = jex_core.Literal
ClosedJaxpr = jex_core.ClosedJaxpr
Jaxpr = jex_core.Jaxpr
Primitive = jex_core.Primitive

JaxprEqn = jex_core.JaxprEqn
Params = dict[str, Any]  # of an equation

P = primitives
R = TypeVar("R")


def named(names: str) -> frozenset[Primitive]:
    """The primitives of these names, separated by spaces, that this version of JAX has."""
    places = (primitives, jax.lax)
    return frozenset(
        p for n in names.split() for m in places if (p := getattr(m, n + "_p", None)) is not None
    )


def by_primitive(rules: Mapping[str, R]) -> dict[Primitive, R]:
    """A table of rules, written with the names of primitives, by the primitives themselves."""
    return {p: rule for names, rule in rules.items() for p in named(names)}


CUSTOM_DERIVATIVE = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)
CONTROL_FLOW = (primitives.scan_p, primitives.while_p, primitives.cond_p)

# Frames of these packages are never "the user's line".
_OTHERS = "jax jaxlib brainstate braintrace saiunit brainunit flax equinox"
_LIBRARIES = tuple(os.sep + name + os.sep for name in _OTHERS.split())


trace_state = jex_core.get_opaque_trace_state  # equal for two places under the same transformations


def bind(primitive: Primitive, values: Sequence[jax.Array], params: Params) -> list[jax.Array]:
    """Apply `primitive` to `values` and return its results as a list."""
    prepared = primitive.get_bind_params(params)
    if isinstance(prepared, tuple):
        subfuns, prepared = prepared
        values = [*subfuns, *values]
    out = primitive.bind(*values, **prepared)
    return list(out) if primitive.multiple_results else [out]


def sub_jaxprs(params: Params) -> list[ClosedJaxpr]:
    """The closed sub-programs that an equation's parameters hold, one level deep."""
    values = [v if isinstance(v, (tuple, list)) else (v,) for v in params.values()]
    return [
        ClosedJaxpr(item, ()) if isinstance(item, Jaxpr) else item
        for items in values
        for item in items
        if isinstance(item, (ClosedJaxpr, Jaxpr))
    ]


def source_line(equation: JaxprEqn) -> str:
    """'file:line (function)' of the user's frame that made the equation, or '' when it is not
    known.
    """
    traceback = getattr(getattr(equation, "source_info", None), "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        name = frame.file_name
        if not name.startswith("<") and not any(part in name for part in _LIBRARIES):
            return f"{name}:{frame.line_num} ({frame.function_name})"
    return ""


def is_traced(value: object) -> bool:
    """Whether `value` is not known yet: a tracer of some transformation."""
    return isinstance(value, jax.core.Tracer)  # pyright: ignore[reportAttributeAccessIssue]


def scan_counts(params: Params) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried; the others are scanned
    over.
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    # from JAX 0.12 on; a flat tree iterates over its leaves
    constants, carried, _ = params["ft_in"].unpack()
    return len(tuple(constants)), len(tuple(carried))


def is_key(dtype: DTypeLike) -> bool:
    """Whether `dtype` is that of typed PRNG keys."""
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def is_differentiable(dtype: DTypeLike) -> bool:
    """Whether values of `dtype` carry gradients (floating point or complex)."""
    return not is_key(dtype) and jnp.issubdtype(dtype, np.inexact)
