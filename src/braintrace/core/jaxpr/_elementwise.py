"""Whether a primitive is elementwise: every element of a result depends on the same element of each
operand only.

JAX's own elementwise primitives are known in advance, as a cache of the answer; any other primitive
(those of third-party packages, such as surrogate spikes, and those of later JAX releases) is
*probed*: it is applied at a small shape, one element is changed at a time, and its derivative is
taken along one-hot tangents, at several random points. It is elementwise when no change and no
derivative ever reaches another element.
"""

import itertools
from collections.abc import Hashable

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import bind, is_differentiable, named, sub_jaxprs
from ._program import Atom, Const, Equation, Var

ELEMENTWISE = named("""
abs acos acosh add add_jaxvals and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
clamp complex conj convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2
expm1 floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max
min mul name ne neg nextafter not or pow real reduce_precision rem round rsqrt select_n
shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient
sub tan tanh xor
""")

_SIDE = 2  # elements along each axis of a probe
_POINTS = 3  # random points at which a primitive is probed, in each of the domains
# a primitive is defined in one of them at least: acos, acosh, sqrt
_DOMAINS = ((-1.5, 1.7), (0.1, 0.9), (1.1, 3.0))
Domain = tuple[float, float]
Values = jax.Array | np.ndarray
_probed: dict[Hashable, bool] = {}


def is_elementwise(equation: Equation) -> bool:
    """Whether `equation` acts element by element on operands of one shape (scalars and axes of size
    1 are broadcast).
    """
    shapes = {v.shape for v in equation.outputs}
    if len(shapes) != 1 or not all(_fits(v.shape, *shapes) for v in equation.inputs):
        return False
    if equation.primitive in ELEMENTWISE:
        return True
    full = any(isinstance(v, Var) and v.shape in shapes for v in equation.inputs)
    numbers = all(_is_number(v.dtype) for v in (*equation.inputs, *equation.outputs))
    if sub_jaxprs(equation.params) or not full or not numbers:
        return False
    rank = len(*shapes)
    scalars = tuple(v.shape == () for v in equation.inputs)
    dtypes = tuple(str(v.dtype) for v in equation.inputs)
    key = equation.primitive, str(equation.params), dtypes, rank, scalars
    if key not in _probed:
        _probed[key] = _probe(equation, max(rank, 1))
    return _probed[key]


def _fits(operand: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return operand == () or (
        len(operand) == len(shape) and all(a in (1, b) for a, b in zip(operand, shape, strict=True))
    )


def _is_number(dtype: np.dtype) -> bool:
    return is_differentiable(dtype) or jnp.issubdtype(dtype, np.integer) or dtype == np.bool_


def _probe(equation: Equation, rank: int) -> bool:
    """Apply the primitive at a small shape and look for an influence between different elements."""
    shape = (_SIDE,) * rank
    random = np.random.default_rng(0)
    apply = lambda *values: bind(equation.primitive, values, equation.params)

    def sample(atom: Atom, domain: Domain) -> np.ndarray:
        dtype = np.dtype(atom.dtype)
        if isinstance(atom, Const) and atom.shape == ():
            return np.full(shape, np.asarray(atom.value), dtype)
        if is_differentiable(dtype):
            return random.uniform(*domain, size=shape).astype(dtype)
        return random.integers(0, 2, shape).astype(dtype)

    def spreads(values: list[np.ndarray], k: int, element: int, domain: Domain) -> bool:
        along = lambda v: apply(*(v if n == k else w for n, w in enumerate(values)))
        changed, tangent = values[k].copy(), np.zeros_like(values[k])
        changed.flat[element] = sample(equation.inputs[k], domain).flat[element]
        tangent.flat[element] = 1
        pairs = list(zip(apply(*values), along(changed), strict=True))
        if is_differentiable(values[k].dtype):
            _, derivative = jax.jvp(along, (values[k],), (tangent,))
            pairs += [(d, np.zeros_like(d)) for d in derivative]
        return any(_other_elements_differ(a, b, element) for a, b in pairs)

    defined = False
    try:
        with jax.ensure_compile_time_eval():
            for domain in _DOMAINS * _POINTS:
                values = [sample(v, domain) for v in equation.inputs]
                results = apply(*values)
                if any(np.shape(r) != shape for r in results):
                    return False
                if not all(np.isfinite(r).all() for r in results):
                    continue  # outside its domain a primitive says nothing
                defined = True
                places = itertools.product(range(len(values)), range(_SIDE**rank))
                if any(spreads(values, k, element, domain) for k, element in places):
                    return False
    except Exception:  # it refuses the probe: parameters tied to its shape, so not elementwise
        return False
    return defined


def _other_elements_differ(a: Values, b: Values, element: int) -> bool:
    if a.dtype == jax.dtypes.float0:
        return False
    a, b = np.asarray(a), np.asarray(b)
    differs = ((a != b) & ~((a != a) & (b != b))).reshape(-1)
    differs[element] = False
    return bool(differs.any())
