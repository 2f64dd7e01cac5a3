"""Steps that are awkward to differentiate or to read: padding, branches that are not taken, rows of
tables, parameters that no step reads, learnable initial states.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from braintrace.core.jaxpr import ControlFlowPolicy, stage

from ._cells import assert_certificates, bptt, draw, errors, learner_of, online

X = draw(0, 6, 3, 2)
W, H = draw(1, 2, 4), draw(2, 3, 4)


# Padding
# -----------------------------------------------------------------------------------------------


def padded_input(p, h, x):
    h = 0.8 * h + jnp.pad(x, ((0, 0), (1, 2)), constant_values=0.5) @ p["W"]
    return h, h


def padded_by_the_input(p, h, x):
    h = 0.8 * h + jnp.pad(x @ p["W"], ((0, 0), (1, 0)), constant_values=x[0, 0])[:, 1:]
    return h, h


def padded_state(p, h, x):
    h = 0.8 * h + p["b"] * jnp.pad(h, ((0, 0), (1, 0)))[:, 1:] + x @ p["W"]
    return h, h


PADDED = {
    padded_input: {"W": draw(3, 5, 4)},
    padded_by_the_input: {"W": W},
    padded_state: {"b": draw(4, 4, scale=0.3), "W": W},
}


@pytest.mark.parametrize("cell", PADDED, ids=lambda cell: cell.__name__)
def test_padding_is_exact(cell):
    assert_certificates(cell, PADDED[cell], H, X)


def test_padding_with_a_parameter_is_exact():
    """JAX itself cannot differentiate this `pad` in reverse: the reference is written otherwise."""

    def cell(p, h, x, pad=lambda x, c: jnp.pad(x, ((0, 0), (1, 1)), constant_values=c)):
        h = 0.8 * h + pad(x, p["c"])
        return h, h

    def written_out(p, h, x):
        return cell(p, h, x, lambda x, c: jnp.pad(x - c, ((0, 0), (1, 1))) + c)

    params = {"c": jnp.array(0.3)}
    with pytest.raises(TypeError):
        bptt(cell, params, H, X)
    found = online(learner_of(cell, params, H, X), params, H, X)
    assert errors(found, bptt(written_out, params, H, X))["c"] < 1e-10


@pytest.mark.parametrize("algorithm", ["d_rtrl", "ostl_recurrent", "pp_prop", "eprop"])
def test_a_causal_convolution_runs_in_windows(algorithm):
    """Exact within the layer; the recurrent path is dropped by the others."""

    def cell(p, h, x):
        h = 0.8 * h + lax.conv(jnp.pad(h, ((0, 0), (0, 0), (2, 0))), p["K"], (1,), "VALID") + x
        return h, h

    params, h, xs = {"K": draw(5, 1, 1, 3, scale=0.3)}, draw(6, 2, 1, 5), draw(7, 6, 2, 1, 5)
    options = {"decay_or_rank": 0.8} if algorithm == "pp_prop" else {}
    learner = learner_of(cell, params, h, xs, algorithm, **options)
    found = online(learner, params, h, xs)
    assert errors(found, found["window 1"])["K"] < 1e-10
    exact = algorithm == "ostl_recurrent"
    assert (errors(found, bptt(cell, params, h, xs))["K"] < 1e-10) == exact


def test_a_number_is_folded_and_an_array_is_not():
    numbers = lambda x: [x + jnp.asarray(3).astype(x.dtype) + jnp.zeros(4)]
    program, _ = stage(
        numbers, [jax.ShapeDtypeStruct((4,), jnp.float64)], [True], ControlFlowPolicy()
    )
    names = [e.primitive.name for e in program.equations]
    assert "convert_element_type" not in names and "broadcast_in_dim" in names


# Branches
# -----------------------------------------------------------------------------------------------

PARTIAL = {
    "sqrt": lambda h: 0.5 * jnp.sqrt(h),
    "log": lambda h: -jnp.log(h) * 0.1,
    "power": lambda h: 0.5 * h**0.3,
    "quotient": lambda h: 0.1 / h,
    "overflow": lambda h: jnp.exp(1 / h) * 1e-3,
    "norm": lambda h: 0.5 * h / jnp.linalg.norm(h, axis=-1, keepdims=True),
    "arc": lambda h: 0.1 * jnp.arcsin(0.9 * h / jnp.max(h, -1, keepdims=True)),
}


def guarded(branch):
    def cell(p, h, x):
        taken = x[0, 0] > 0
        kept = lax.cond(taken, branch, lambda h: 0.8 * h, h)
        h = kept + jnp.abs(x @ p["W"])
        return h, h

    return cell


@pytest.mark.parametrize("name", PARTIAL)
def test_a_branch_that_is_not_taken_may_be_undefined(name):
    """At the first step the state is zero and the partial branch is not taken."""
    xs = X.at[:, 0, 0].set(jnp.array([-1.0, 1, -1, 1, 1, -1]))
    params, h = {"W": jnp.abs(W)}, jnp.zeros((3, 4))
    mixing = name in ("norm", "arc")
    cell = guarded(PARTIAL[name])
    assert_certificates(cell, params, h, xs, approximate="W" if mixing else ())
    assert_certificates(cell, params, h, xs, "ostl_recurrent")


def test_without_the_guard_the_derivative_is_not_finite():
    select = lambda h: jnp.where(h > 0, jnp.sqrt(h), 0.8 * h)
    assert not np.isfinite(jax.grad(select)(0.0))


def test_a_weight_inside_a_branch_that_is_not_taken():
    def cell(p, h, x):
        drive = lax.cond(
            x[0, 0] > 0, lambda h, x: jnp.sqrt(x @ p["W"]), lambda h, x: x @ p["V"], h, x
        )
        h = 0.8 * h + drive
        return h, h

    xs = jnp.abs(X).at[:, 0, 0].multiply(jnp.array([-1.0, 1, -1, 1, 1, -1]))
    xs = jnp.where(
        xs[:, :1, :1] < 0, -jnp.abs(xs), xs
    )  # the root is undefined where it is not taken
    assert_certificates(cell, {"W": jnp.abs(W) + 0.1, "V": W}, H, xs)


def test_a_branch_that_parameters_choose():
    def cell(p, h, x):
        decay = lax.cond(p["a"][0] > 0, jnp.sqrt, lambda a: 0.5 + 0.1 * a, p["a"])
        h = decay * h + x @ p["W"]
        return h, h

    assert_certificates(cell, {"a": jnp.array([0.0, 0.3, 0.2, 0.5]), "W": W}, H, X)


def test_nested_branches_and_switches():
    def cell(p, h, x):
        inner = lambda h: lax.cond(x[1, 0] > 0, jnp.sqrt, lambda h: 1 / h, h)
        h = lax.switch(x[0, 0].astype(int), [lambda h: 0.8 * h, inner, jnp.log1p], h)
        h = h + jnp.abs(x @ p["W"])
        return h, h

    xs = X.at[:, 0, 0].set(jnp.array([0.0, 1, 0, 1, 2, 0]))
    assert_certificates(cell, {"W": jnp.abs(W)}, jnp.zeros((3, 4)), xs)


# Rows of a table
# -----------------------------------------------------------------------------------------------

LOOKUPS = {
    "E[ids]": lambda E, ids: E[ids],
    "vmap of E[i]": lambda E, ids: jax.vmap(lambda i: E[i])(ids),
    "vmap of a row of columns": lambda E, ids: jax.vmap(lambda i: E.T[:, i])(ids),
    "take": lambda E, ids: jnp.take(E, ids, axis=0),
    "dynamic_index_in_dim": lambda E, ids: jax.vmap(
        lambda i: lax.dynamic_index_in_dim(E, i, 0, False)
    )(ids),
}


@pytest.mark.parametrize("algorithm", ["d_rtrl", "ostl_recurrent"])
@pytest.mark.parametrize("rows", [3, 5])
@pytest.mark.parametrize("name", LOOKUPS)
def test_rows_of_a_table(name, rows, algorithm):
    def cell(p, h, ids):
        h = 0.8 * h + LOOKUPS[name](p["E"], ids)
        return h, h

    ids = jnp.asarray(np.random.default_rng(0).integers(0, rows, (6, 3)))
    learner = assert_certificates(cell, {"E": draw(8, rows, 4)}, H, ids, algorithm)
    assert [site.is_operation for site in learner.graph.sites] == [True]


def test_a_row_of_a_table_without_a_batch():
    def cell(p, h, i):
        h = 0.8 * h + p["E"][i]
        return h, h

    ids = jnp.array([0, 2, 1, 4, 2, 0])
    learner = assert_certificates(cell, {"E": draw(9, 5, 4)}, draw(10, 4), ids)
    assert [site.is_operation for site in learner.graph.sites] == [True]


# Parameters that the step does not read
# -----------------------------------------------------------------------------------------------


def test_a_parameter_that_no_step_reads_is_unused():
    def cell(p, h, x):
        h = 0.9 * h + x @ p["W"]
        return h, h @ p["o"]

    learner = learner_of(cell, {"W": W, "h0": jnp.ones(4), "o": draw(11, 4, 2)}, H, X)
    kinds = {row.path: row.exactness.value for row in learner.graph.parameters}
    assert kinds == {"['W']": "exact", "['h0']": "unused", "['o']": "exact"}
    [row] = [r for r in learner.graph.parameters if r.path == "['h0']"]
    assert "where(first, h0, h)" in row.reason and "1 unused" in str(learner.report)


def test_a_parameter_that_is_handed_on_is_read():
    learner = learner_of(lambda p, h, x: (0.9 * h + x @ p["W"], p["W"]), {"W": W}, H, X)
    assert learner.graph.exactness("['W']").value == "exact"


@pytest.mark.parametrize("starts", ["once", "again", "of each sample"])
def test_an_initial_state_that_the_step_reads_is_learnt(starts):
    def cell(p, h, at):
        x, first = at
        h = jnp.where(first, p["h0"], h)
        h = 0.8 * h * jnp.tanh(h) + x @ p["W"]
        return h, h

    first = {
        "once": jnp.arange(6) == 0,
        "again": jnp.array([1, 0, 0, 1, 0, 0], bool),
        "of each sample": (jnp.arange(6)[:, None] % jnp.array([6, 2, 3]) == 0)[..., None],
    }[starts]
    params = {"W": W, "h0": draw(12, 4, scale=0.5)}
    assert_certificates(cell, params, H, (X, first))
    idle = bptt(cell, params, H, (X, jnp.zeros_like(first)))
    assert not np.any(idle["h0"])  # without a reset, nothing reaches it
