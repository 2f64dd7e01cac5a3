"""What counts as elementwise: the known primitives pass the probe, what mixes elements fails it."""

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit
from jax import lax

from braintrace.core.jaxpr import ControlFlowPolicy, is_elementwise, stage
from braintrace.core.jaxpr._elementwise import ELEMENTWISE, _probe

X = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (3, 3)))
N = jnp.arange(1, 10).reshape(3, 3)
Z = X + 0.5j * X.T

_UNARY = """
abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv
erfc exp exp2 expm1 floor is_finite lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt
square tan tanh
"""
_BINARY = "add atan2 div eq ge gt igamma igammac le lt max min mul ne pow rem sub"
UNARY, BINARY = _UNARY.split(), _BINARY.split()
INTEGER = ["shift_left", "shift_right_arithmetic", "shift_right_logical"]
LOGICAL = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}

EXAMPLES = {name: (getattr(lax, name), X) for name in UNARY}
EXAMPLES |= {name: (getattr(lax, name), X, X.T) for name in BINARY}
EXAMPLES |= {name: (getattr(lax, name), N, N.T) for name in INTEGER}
EXAMPLES |= {name: (getattr(lax, function), N, N.T) for name, function in LOGICAL.items()}
EXAMPLES |= {
    "clamp": (lambda x, y, z: lax.clamp_p.bind(x, y, z), 0 * X, X.T, X),
    "complex": (lax.complex, X, X.T),
    "conj": (lax.conj, Z),
    "convert_element_type": (lambda x: x.astype(jnp.float32), X),
    "copy": (lambda x: lax.copy_p.bind(x), X),
    "imag": (lax.imag, Z),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), X),
    "not": (lax.bitwise_not, N),
    "real": (lax.real, Z),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 10), X),
    "select_n": (lambda x, y, z: lax.select_n(x > 0.5, y, z), X, X.T, X),
}
#: Those that no public function makes here, that hold a name only, or that have no derivative to
#: probe.
UNTRIED = {"add_any", "name", "nextafter", "stop_gradient"}


def equation_of(function, *operands, name=None):
    """The last equation of a function, or that of a named primitive."""
    avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in operands]
    program, _ = stage(lambda *v: [function(*v)], avals, [True] * len(avals), ControlFlowPolicy())
    found = [e for e in program.equations if name in (None, e.primitive.name)]
    assert found, [e.primitive.name for e in program.equations]
    return found[-1]


def test_every_known_primitive_is_tried():
    assert {p.name for p in ELEMENTWISE} - EXAMPLES.keys() <= UNTRIED
    assert EXAMPLES.keys() <= {p.name for p in ELEMENTWISE}


@pytest.mark.parametrize("name", EXAMPLES)
def test_known_primitives_pass_the_probe(name):
    equation = equation_of(*EXAMPLES[name], name=name)
    assert equation.primitive in ELEMENTWISE
    assert _probe(equation, 2)
    assert is_elementwise(equation)


V = X[0]
MIXING = {
    "cumsum": (lambda x: jnp.cumsum(x, axis=1), X),
    "cumprod": (lambda x: lax.cumprod(x), X),
    "cummax": (lambda x: lax.cummax(x), X),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, axis=1), X),
    "sort": (lambda x: lax.sort(x), X),
    "rev": (lambda x: lax.rev(x, (0,)), X),
    "fft": (lambda x: jnp.fft.fft(x), Z),
    "dot_general": (lambda x, y: x @ y, X, X.T),
    "square dot": (lambda x: x @ x, X),
    "transpose": (lambda x: x.T, X),
    "cholesky": (lambda x: lax.linalg.cholesky(x), X),
    "triangular solve": (lambda x, y: lax.linalg.triangular_solve(x, y), X, X),
    "gather": (lambda x: x[jnp.array([2, 0, 1])], X),
    "reduce_sum": (lambda x: x.sum(0), X),
    "reduce_max": (lambda x: x.max(), X),
    "reduce_sum of one": (lambda x: x.sum(0), X[:1]),
    "argmax": (lambda x: jnp.argmax(x, 0), X),
    "reduce_window": (lambda x: lax.reduce_window(x, 0.0, lax.add, (3, 3), (1, 1), "SAME"), X),
    "convolution": (
        lambda x: lax.conv(x[None, None], jnp.ones((1, 1, 3, 3)), (1, 1), "SAME")[0, 0],
        X,
    ),
    "concatenate": (lambda x: jnp.concatenate([x[1:], x[:1]]), X),
    "scatter": (lambda x: x.at[0].add(x[1]), X),
    "iota": (lambda x: lax.iota(jnp.int32, 3), V),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_is_not_elementwise(name):
    function, *operands = MIXING[name]
    avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in operands]
    program, _ = stage(lambda *v: [function(*v)], avals, [True] * len(avals), ControlFlowPolicy())
    assert not all(is_elementwise(e) for e in program.equations) or not program.equations


def test_probing_the_mixing_ones_says_no():
    """The probe itself, on those whose result has the operands' shape."""
    for name in (
        "cumsum",
        "cumprod",
        "cummax",
        "cumlogsumexp",
        "sort",
        "rev",
        "fft",
        "dot_general",
        "cholesky",
    ):
        function, *operands = MIXING[name]
        wanted = {"sort": "sort", "fft": "fft", "cholesky": "cholesky"}.get(name, name)
        assert not _probe(equation_of(function, *operands, name=wanted), 2), name


@pytest.mark.parametrize(
    "surrogate",
    [
        braintools.surrogate.ReluGrad(),
        braintools.surrogate.Sigmoid(),
        braintools.surrogate.GaussianGrad(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_third_party_surrogates_are_elementwise(surrogate):
    equation = equation_of(surrogate, X - 0.5, name="heaviside_surrogate_gradient")
    assert equation.primitive not in ELEMENTWISE
    assert is_elementwise(equation)


def test_exprel_is_elementwise():
    """A primitive, or a call with a derivative of its own, by the version of the library."""
    avals = [jax.ShapeDtypeStruct(X.shape, X.dtype)]
    program, _ = stage(lambda x: [saiunit.math.exprel(x)], avals, [True], ControlFlowPolicy())
    for equation in program.equations:
        assert is_elementwise(equation) or "custom" in equation.primitive.name


def test_a_unary_primitive_that_is_new_is_found_by_property():
    """Known in advance or not, the answer is the same."""
    for primitive, function in ((lax.tanh_p, jnp.tanh), (lax.erf_inv_p, lax.erf_inv)):
        equation = equation_of(function, X)
        assert equation.primitive is primitive
        assert _probe(equation, 2)


def test_shapes_that_do_not_fit_are_not_elementwise():
    assert not is_elementwise(equation_of(lambda x: jnp.broadcast_to(x, (3, 3)), V))
    assert not is_elementwise(equation_of(lambda x: x.reshape(9), X))
