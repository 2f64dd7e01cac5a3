"""Derivatives of the user's own: what their rules mix is mixing, and what is not linear is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from braintrace.core._errors import CompilationError
from braintrace.core.analysis._influence import influences
from braintrace.core.jaxpr import ControlFlowPolicy, derivative, stage

from ._cells import assert_certificates, bptt, draw, errors, learner_of, online

X = draw(0, 6, 3, 2)
W, H, OUT = draw(1, 2, 4), draw(2, 3, 4), draw(3, 4, 2)


def with_backward(backward, forward=lambda v: v):
    function = jax.custom_vjp(forward)
    function.defvjp(lambda v: (forward(v), v), lambda v, g: (backward(g, v),))
    return function


def with_forward(tangent, forward=jnp.tanh):
    function = jax.custom_jvp(forward)
    function.defjvp(lambda p, t: (forward(*p), tangent(t[0], p[0])))
    return function


def mean(v):
    return v.mean(-1, keepdims=True)


def spike(v):
    return (v > 0.1).astype(v.dtype)


def surrogate(v):
    return 1 / (1 + 4 * jnp.abs(v)) ** 2


POSITIONAL = {
    "custom_vjp of a spike": with_backward(lambda g, v: g * surrogate(v), spike),
    "custom_jvp of a spike": with_forward(lambda t, v: t * surrogate(v), spike),
    "a slope that other neurons set": with_backward(lambda g, v: g * (1 + mean(v))),
    "a value that mixes": with_backward(lambda g, v: 0.5 * g, lambda v: v - mean(v)),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "a reversed gradient": with_backward(lambda g, v: -g),
    "a masked gradient": with_backward(lambda g, v: jnp.where(v > 0, g, jnp.zeros_like(g))),
}
MIXING = {
    "centred": with_backward(lambda g, v: g - mean(g)),
    "rolled": with_backward(lambda g, v: jnp.roll(g, 1, -1)),
    "custom_jvp with a lateral term": with_forward(lambda t, v: t + 0.3 * mean(t)),
    "softmax": lambda v: jax.nn.softmax(v, -1),
}
BENT = {
    "clipped": with_backward(lambda g, v: jnp.clip(g, -0.1, 0.1)),
    "of its norm": with_backward(lambda g, v: g / (1 + jnp.abs(g))),
    "a sign": with_backward(lambda g, v: jnp.sign(g)),
    "with noise": with_backward(lambda g, v: g + 0.1),
    "dropped where small": with_backward(lambda g, v: jnp.where(jnp.abs(g) > 0.1, g, 0.0)),
    "constant": with_backward(lambda g, v: jnp.ones_like(v)),
}


def recurrent(function):
    def cell(p, h, x):
        h = 0.8 * function(h) + x @ p["W"]
        return h, jnp.tanh(h) @ p["o"]

    return cell


@pytest.mark.parametrize("name", POSITIONAL)
def test_positional_rules_are_exact(name):
    assert_certificates(recurrent(POSITIONAL[name]), {"W": W, "o": OUT}, H, X)


@pytest.mark.parametrize("name", MIXING | BENT)
def test_other_rules_are_approximate(name):
    function = (MIXING | BENT)[name]
    learner = assert_certificates(recurrent(function), {"W": W, "o": OUT}, H, X, approximate="W")
    [row, _] = learner.graph.parameters
    assert [path.kind for path in row.dropped] == ["recurrent"]
    assert ("not linear" in row.dropped[0].operation) == (name in BENT)
    assert "test_derivatives.py" in row.dropped[0].source or name == "softmax"


@pytest.mark.parametrize("name", ["centred", "rolled", "custom_jvp with a lateral term"])
def test_mixing_within_a_layer_is_exact_for_ostl(name):
    assert_certificates(recurrent(MIXING[name]), {"W": W, "o": OUT}, H, X, "ostl_recurrent")


@pytest.mark.parametrize("name", BENT)
def test_what_is_not_linear_is_exact_for_no_algorithm(name):
    cell = recurrent(BENT[name])
    assert_certificates(cell, {"W": W, "o": OUT}, H, X, "ostl_recurrent", approximate="W")


@pytest.mark.parametrize("name", BENT)
def test_on_the_way_to_a_readout_it_is_named(name):
    """A loss divided by its steps gives another gradient than the gradient so divided."""

    def cell(p, h, x):
        h = 0.8 * h + x @ p["W"]
        return h, BENT[name](h) @ p["o"]

    rows = learner_of(cell, {"W": W, "o": OUT}, H, X).graph.parameters
    assert [row.exactness.value for row in rows] == ["approximate", "exact"]
    assert [path.kind for path in rows[0].dropped] == ["readout"]


@pytest.mark.parametrize("algorithm", ["d_rtrl", "ostl_recurrent"])
def test_a_rule_that_mixes_samples_is_seen(algorithm):
    """The values keep the samples apart; the derivative does not. A refusal is an answer, too."""
    cell, params = recurrent(with_backward(lambda g, v: g - g.mean(0))), {"W": W, "o": OUT}
    try:
        learner = learner_of(cell, params, H, X, algorithm)
    except CompilationError as refusal:
        assert algorithm == "ostl_recurrent" and "sample" in str(refusal)
        return
    off = errors(online(learner, params, H, X), bptt(cell, params, H, X))
    assert (off["W"] < 1e-10) == (learner.graph.exactness("['W']").value == "exact")
    assert off["W"] > 0.01 or algorithm == "ostl_recurrent"


def test_a_parameter_under_a_clipped_gradient_is_instantaneous():
    """The clip meets each step's cotangent in BPTT, and their sum in a learner."""

    def cell(p, h, x):
        h = 0.8 * h + x @ BENT["clipped"](p["W"]) + p["b"]
        return h, h

    params = {"W": W, "b": draw(4, 4)}
    learner = learner_of(cell, params, H, X)
    assert learner.graph.exactness("['W']").value == "instantaneous"
    assert learner.graph.exactness("['b']").value == "exact"
    off = errors(online(learner, params, H, X), bptt(cell, params, H, X))
    assert off["b"] < 1e-10 < off["W"]


def test_a_clip_between_a_weight_and_the_state_is_instantaneous():
    def cell(p, h, x):
        h = 0.8 * h + BENT["clipped"](x @ p["W"])
        return h, h

    learner = learner_of(cell, {"W": W}, H, X)
    assert learner.graph.exactness("['W']").value == "instantaneous"


@pytest.mark.parametrize("name", ["a reversed gradient", "clipped"])
def test_inside_control_flow_that_is_not_unfolded(name):
    function = (POSITIONAL | BENT)[name]

    def cell(p, h, x):
        kept = lax.cond(x[0, 0] > 0, lambda h: 0.8 * function(h), lambda h: 0.7 * h, h)
        h = kept + x @ p["W"]
        return h, h

    options = {"control_flow": ControlFlowPolicy(cond="opaque")}
    approximate = "W" if name in BENT else ()
    assert_certificates(cell, {"W": W}, H, X, "ostl_recurrent", approximate, **options)


def equation_of(function, *shapes):
    avals = [jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes]
    program, _ = stage(lambda *v: [function(*v)], avals, [False] * len(avals), ControlFlowPolicy())
    return program.equations[-1]


def pairs(function, *shapes):
    """(operand, element, element of the result) of all influences."""
    equation = equation_of(function, *shapes)
    found = set()
    for k, maps in enumerate(influences(equation)):
        for m in maps:
            source, target = m.pairs(equation.inputs[k].size)
            found |= {(k, int(i), int(j)) for i, j in zip(source, target, strict=True)}
    return found


def jacobian_pairs(function, *shapes):
    values = [draw(k, *s) for k, s in enumerate(shapes)]
    found = set()
    for k, jacobian in enumerate(jax.jacrev(function, range(len(shapes)))(*values)):
        matrix = np.asarray(jacobian).reshape(-1, values[k].size)
        found |= {(k, int(i), int(j)) for j, i in np.argwhere(matrix)}
    return found


CALLS = {
    "a sum": (
        with_backward(lambda g, v: jnp.broadcast_to(g[:, None], v.shape), lambda v: v.sum(1)),
        (2, 3),
    ),
    "a broadcast": (with_backward(lambda g, v: g.sum(1), lambda v: jnp.stack([v] * 3, 1)), (2,)),
    "a permutation": (with_backward(lambda g, v: g[::-1]), (4,)),
    "neighbours": (with_backward(lambda g, v: g + jnp.roll(g, 1)), (4,)),
    "a scan of products": (
        with_backward(lambda g, v: jnp.cumsum(g[:, ::-1], 1)[:, 1:] * v[:, 1:], lambda v: v[:, 1:]),
        (2, 1),
    ),
    "elementwise": (with_backward(lambda g, v: g * v + g / (1 + v**2)), (2, 3)),
}


@pytest.mark.parametrize(
    "name", ["a sum", "a broadcast", "a permutation", "neighbours", "elementwise"]
)
def test_the_influence_is_that_of_the_rule(name):
    function, shape = CALLS[name]
    assert pairs(function, shape) == jacobian_pairs(function, shape)


def test_products_of_the_cotangent_with_values_are_linear_and_of_itself_are_not():
    matrix = draw(5, 4, 4)
    linear = [
        lambda g, v: (g @ matrix) * v - lax.rev(g, (1,)),
        lambda g, v: jnp.pad(g[:, 1:], ((0, 0), (1, 0))) / (1 + v**2),
        lambda g, v: jnp.zeros_like(v).at[:, 1].add(g[:, 0]),
        lambda g, v: jnp.zeros_like(v),
    ]
    bent = [lambda g, v: g * g, lambda g, v: v / g, lambda g, v: g.at[:, 0].set(1.0)]
    for backward in linear:
        assert not derivative(equation_of(with_backward(backward), (3, 4))).bent
    for backward in bent:
        assert derivative(equation_of(with_backward(backward), (3, 4))).bent == {0}
