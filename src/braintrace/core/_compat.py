"""Everything that depends on the version of JAX. No other file touches JAX's representation of
programs.
"""

import contextlib
import functools
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend import core as jex_core
from jax.extend.core import primitives
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh
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


def varying_axes(value: Any) -> frozenset[str]:
    """The axes of a mesh along which `value` differs, inside a `jax.shard_map` that checks them."""
    return frozenset(jax.typeof(value).manual_axis_type.varying)


@contextlib.contextmanager
def on_no_mesh() -> Iterator[None]:
    """What is traced inside runs on any mesh: the calls in it keep the one that they were traced
    on. Inside `jax.shard_map` it is kept: what is mapped there has its axes.
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        yield
        return
    with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
        yield


def all_varying(values: Any, like: Any) -> Any:
    """`values` as arrays that differ along all axes along which arrays of `like` do."""
    axes = frozenset[str]().union(*map(varying_axes, jax.tree.leaves(like)))
    cast = lambda v, missing: jax.lax.pcast(v, missing, to="varying") if missing else v
    return jax.tree.map(lambda v: cast(v, tuple(sorted(axes - varying_axes(v)))), values)


Refuse = Callable[[Any], NoReturn]
Identity = Callable[[jax.Array, Any], jax.Array]


def identity_without_derivative(name: str, refuse: Refuse) -> Identity:
    """An identity `f(value, reason)` whose derivative calls `refuse(reason)`, which raises.

    It is a primitive of its own: partial evaluation, as in the derivative of a scan, drops the rule
    of a `custom_jvp`, and a second derivative would pass.
    """
    primitive = _identity(name)
    ad.primitive_jvps[primitive] = lambda *_, reason: refuse(reason)
    return lambda value, reason: primitive.bind(value, reason=reason)


def identity_of_reverse_mode(name: str, refuse: Refuse) -> Identity:
    """An identity `f(value, reason)` with a derivative in reverse mode; forward mode calls
    `refuse(reason)`, which raises. A `custom_vjp` would raise an error of JAX's.
    """
    primitive, tangent = _identity(name), Primitive(f"{name}_tangent")
    refused = lambda *_, reason: refuse(reason)
    tangent.def_impl(refused)
    tangent.def_abstract_eval(lambda value, *, reason: value)
    mlir.register_lowering(tangent, refused)
    batching.primitive_batchers[tangent] = refused
    ad.primitive_jvps[tangent] = refused
    ad.primitive_transposes[tangent] = lambda cotangent, _, *, reason: [cotangent]

    def derivative(primals: Any, tangents: Any, *, reason: Any) -> Any:
        return primitive.bind(*primals, reason=reason), tangent.bind(*tangents, reason=reason)

    ad.primitive_jvps[primitive] = derivative
    return lambda value, reason: primitive.bind(value, reason=reason)


def _identity(name: str) -> Primitive:
    """A primitive that gives its operand back, and has no derivative yet."""
    primitive = Primitive(name)
    primitive.def_impl(lambda value, *, reason: value)
    primitive.def_abstract_eval(lambda value, *, reason: value)
    mlir.register_lowering(primitive, lambda _, value, *, reason: [value])
    batching.defvectorized(primitive)
    return primitive


def derive_rules(primitive: Primitive, function: Callable[..., Any]) -> None:
    """Give a primitive all that JAX asks of one, from the function that it stands for."""
    of = lambda params: functools.partial(function, **params)

    def abstract(*operands: Any, **params: Any) -> Any:
        out = jax.eval_shape(of(params), *operands)
        return jax.tree.map(lambda v: ShapedArray(v.shape, v.dtype), out)

    def derivative(primals: Any, tangents: Any, **params: Any) -> Any:
        return jax.jvp(of(params), primals, tuple(map(ad.instantiate_zeros, tangents)))

    def mapped(operands: Any, axes: Any, **params: Any) -> Any:
        return jax.vmap(of(params), in_axes=tuple(axes))(*operands), 0

    primitive.def_impl(function)
    primitive.def_abstract_eval(abstract)
    several = primitive.multiple_results
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=several))
    ad.primitive_jvps[primitive] = derivative
    batching.primitive_batchers[primitive] = mapped


# (size of the map, which operands it maps, operands) -> results, all with the mapped axis in front,
# as is that of each mapped operand
BatchRule = Callable[[int, Sequence[bool], Sequence[jax.Array]], Sequence[jax.Array]]
Flat = Callable[..., Sequence[jax.Array]]


def with_batch_rule(function: Flat, rule: BatchRule) -> Flat:
    """`function`, of arrays to arrays, which under `jax.vmap` is what `rule` says.

    As `jax.custom_batching.custom_vmap`, which has no derivative in reverse mode.
    """
    return lambda *values: _with_batch_rule_p.bind(*values, function=function, rule=rule)


_with_batch_rule_p = Primitive("with_batch_rule")
_with_batch_rule_p.multiple_results = True


def _mapped(values: Any, axes: Any, *, function: Flat, rule: BatchRule) -> tuple[Any, list[int]]:
    size = next(v.shape[k] for v, k in zip(values, axes, strict=True) if k is not None)
    pairs = zip(values, axes, strict=True)
    in_front = [v if k is None else jnp.moveaxis(v, k, 0) for v, k in pairs]
    results = rule(size, [k is not None for k in axes], in_front)
    return results, [0] * len(results)


derive_rules(_with_batch_rule_p, lambda *values, function, rule: list(function(*values)))
batching.primitive_batchers[_with_batch_rule_p] = _mapped


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
    source = getattr(getattr(equation, "source_info", None), "traceback", None)
    for frame in getattr(source, "frames", ()):
        if _is_users(frame.file_name):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return ""


def raised_line(error: BaseException) -> str:
    """'file:line (function)' of the user's frame that an error came through last, or ''."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next(
        (f"{f.filename}:{f.lineno} ({f.name})" for f in frames if _is_users(f.filename)), ""
    )


def _is_users(file: str) -> bool:
    return not file.startswith("<") and not any(part in file for part in _LIBRARIES)


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


def is_wide_mode() -> bool:
    """Whether JAX has values of 64 bits."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def is_key(dtype: DTypeLike) -> bool:
    """Whether `dtype` is that of typed PRNG keys."""
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def is_differentiable(dtype: DTypeLike) -> bool:
    """Whether values of `dtype` carry gradients (floating point or complex)."""
    return not is_key(dtype) and jnp.issubdtype(dtype, np.inexact)
