"""Cells whose neurons act on themselves alone, however they are written, are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace.core.analysis._influence import influences
from braintrace.core.jaxpr import ControlFlowPolicy, stage

from ._cells import assert_certificates, draw

B, N = 3, 4
X, W, H = draw(0, 6, B, 2), draw(1, 2, N), draw(2, B, N)
CELLS = {}
MIXING = {}


def cell(params, carry, found=CELLS):
    def register(step):
        found[step.__name__] = step, {"W": W, **params}, carry
        return step

    return register


def control(params, carry):
    """A cell that looks alike and mixes neurons."""
    return cell(params, carry, MIXING)


@cell({}, H)
def part_scaled_in_place(p, h, x):
    h = h.at[:, 2:].multiply(0.5, unique_indices=True) + x @ p["W"]
    return h, h


@cell({}, H)
def part_raised_in_place(p, h, x):
    h = 0.8 * h.at[:, 2].max((x @ p["W"])[:, 2]) + 0.1 * (x @ p["W"])
    return h, h


@cell({}, H)
def part_lowered_in_place(p, h, x):
    h = 0.8 * h.at[:, 1:3].min((x @ p["W"])[:, 1:3]) + 0.1 * (x @ p["W"])
    return h, h


@cell({}, H)
def part_reduced_in_place(p, h, x):
    h = 0.8 * h.at[:, 2].add(-0.3 * h[:, 2]) + x @ p["W"]
    return h, h


@cell({}, H)
def part_replaced_in_place(p, h, x):
    y = x @ p["W"]
    h = (0.8 * h).at[:, 1].set(0.5 * h[:, 1] + y[:, 1]) + y
    return h, h


@cell({}, H)
def columns_written_one_by_one(p, h, x):
    y = x @ p["W"]
    new = jnp.zeros_like(h)
    for k in range(N):
        new = jax.lax.dynamic_update_slice(new, 0.8 * h[:, k : k + 1] + y[:, k : k + 1], (0, k))
    return new, new


@cell({"permutation": jnp.array([2, 0, 3, 1])}, H)
def permuted_by_a_parameter(p, h, x):
    h = 0.8 * h + (x @ p["W"])[:, p["permutation"]]
    return h, h


@cell({"chosen": jnp.array([2, 0, 2, 1])}, H)
def chosen_by_a_parameter(p, h, x):
    h = 0.8 * h + jnp.tanh(h) * (x @ p["W"])[:, p["chosen"]]
    return h, h


@cell({"r": draw(6, N)}, H)
def a_diagonal_matrix(p, h, x):
    h = 0.8 * jnp.tanh(h) @ jnp.diag(p["r"]) + x @ p["W"]
    return h, h


@cell({"R": draw(7, N, N)}, H)
def a_masked_matrix(p, h, x):
    h = (-(p["R"] * jnp.eye(N)).T / 2 @ h.T).T + x @ p["W"]
    return h, h


def leaky(p, v, x):
    return 0.8 * v * jnp.tanh(v) + x @ p["W"]


@cell({"tau": draw(20, 3, scale=0.3)}, (H, draw(21, B, N, 3)))
def a_bank_of_filters(p, c, x):
    v = leaky(p, c[0], x)
    bank = jax.nn.sigmoid(p["tau"]) * c[1] + v[..., None]
    return (v, bank), bank.sum(-1)


@cell({}, (H, H))
def signs_by_concatenation(p, c, x):
    v = leaky(p, c[0], x)
    return (v, 0.9 * c[1] + jnp.concatenate([c[0][:, :2], -c[0][:, 2:]], -1)), c[1]


@cell({}, (H, draw(22, B, N)))
def rolls_of_another_leaf(p, c, x):
    a = 0.8 * c[0] + 0.3 * jnp.tanh(jnp.roll(c[1], 1, -1)) + x @ p["W"]
    return (a, 0.8 * c[1] + 0.3 * jnp.roll(c[0], -1, -1)), a


@cell({}, draw(23, B, N, 2))
def a_stack_written_in_place(p, c, x):
    v = leaky(p, c[..., 0], x) - 0.1 * c[..., 1]
    return c.at[..., 0].set(v).at[..., 1].set(0.9 * c[..., 1] + v), v


@cell({}, H)
def pairs_that_rotate(p, h, x):
    a, b = h[:, :2], h[:, 2:]
    turned = jnp.concatenate([0.8 * a - 0.3 * jnp.tanh(b), 0.3 * a + 0.8 * b], -1)
    h = turned + x @ p["W"]
    return h, h


@cell({}, (H, draw(24, B, 3, N)))
def a_shift_register(p, c, x):
    v = leaky(p, c[0], x) - 0.2 * jnp.tanh(c[1][:, 0])
    return (v, jnp.concatenate([c[1][:, 1:], v[:, None]], 1)), v


@cell({}, draw(25, B, N, 3))
def a_softmax_over_own_slots(p, c, x):
    c = 0.8 * c + jax.nn.softmax(c, -1) + (x @ p["W"])[..., None]
    return c, c


@control({}, H)
def a_roll_of_its_own(p, h, x):
    h = 0.8 * jnp.roll(h, 1, -1) + x @ p["W"]
    return h, h


@cell({}, (H, H))
def two_rolls_that_make_two_rings(p, c, x):
    a = 0.8 * c[0] + 0.3 * jnp.tanh(jnp.roll(c[1], 1, -1)) + x @ p["W"]
    return (a, 0.8 * c[1] + 0.3 * jnp.roll(c[0], 1, -1)), a


@control({}, H)
def a_softmax_over_neurons(p, h, x):
    h = 0.8 * h + jax.nn.softmax(h, -1) + x @ p["W"]
    return h, h


@control({"R": draw(8, N, N, scale=0.3)}, H)
def a_triangular_matrix(p, h, x):
    h = h @ jnp.tril(p["R"]) + x @ p["W"]
    return h, h


@control({}, H)
def another_column_added_in_place(p, h, x):
    h = 0.8 * h.at[:, 2].add(-0.3 * h[:, 1]) + x @ p["W"]
    return h, h


@control({}, H)
def another_column_set_in_place(p, h, x):
    h = (0.8 * h).at[:, 1].set(0.5 * h[:, 0]) + x @ p["W"]
    return h, h


@control({}, H)
def a_running_sum(p, h, x):
    h = 0.3 * jnp.cumsum(h, 1) + x @ p["W"]
    return h, h


@control({}, H)
def sorted_neurons(p, h, x):
    h = 0.8 * jnp.sort(h, 1) + x @ p["W"]
    return h, h


@pytest.mark.parametrize("name", CELLS)
def test_exact(name):
    assert_certificates(*CELLS[name], X)


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_is_not(name):
    step, params, carry = MIXING[name]
    assert_certificates(step, params, carry, X, approximate=params)


def test_a_site_is_judged_by_the_leaves_that_it_reaches():
    """A learned filter behind recurrent neurons: nothing comes back from the filter."""

    def filtered(p, c, x):
        v = 0.8 * c[0] + jnp.tanh(x @ p["W"] + c[0] @ p["U"])
        f = jax.nn.sigmoid(p["tau"]) * c[1] + v
        return (v, f), f

    params = {"W": W, "U": draw(3, N, N, scale=0.3), "tau": draw(4, N)}
    learner = assert_certificates(filtered, params, (H, H), X, approximate=("W", "U"))
    assert len(learner.graph.groups) == 1

    def fed_back(p, c, x):
        (v, f), out = filtered(p, (c[0] + 0.1 * c[1], c[1]), x)
        return (v, f), out

    assert_certificates(fed_back, params, (H, H), X, approximate=("W", "U", "tau"))


# The influence of one equation against its derivative
# -----------------------------------------------------------------------------------------------

INDICES = jnp.array([3, 0, 0])
MOVES = {
    "reshape": lambda x: x.reshape(2, 6),
    "broadcast": lambda x: jax.lax.broadcast_in_dim(x, (3, 2, 4), (0, 2)),
    "expand": lambda x: x[:, None],
    "transpose": lambda x: x.T,
    "slice": lambda x: jax.lax.slice(x, (0, 1), (3, 4), (2, 2)),
    "rev": lambda x: x[:, ::-1],
    "concatenate": lambda x: jnp.concatenate([x, x], 1),
    "stack": lambda x: jnp.stack([x, x], 1),
    "tile": lambda x: jnp.tile(x, (2, 3)),
    "pad": lambda x: jnp.pad(x, ((1, 0), (0, 2))),
    "interior pad": lambda x: jax.lax.pad(x, 0.0, ((1, -1, 0), (0, 1, 2))),
    "gather": lambda x: x[:, INDICES],
    "gather outside": lambda x: jnp.take(x, jnp.array([5, 1]), 1, mode="fill", fill_value=0.0),
    "dynamic_slice": lambda x: jax.lax.dynamic_slice(x, (1, 1), (2, 3)),
    "dynamic_update_slice": lambda x: jax.lax.dynamic_update_slice(x, x[:2, :2], (1, 2)),
    "scatter": lambda x: x.at[jnp.array([0, 2])].set(x[:2]),
    "scatter_add": lambda x: x.at[:, INDICES].add(x[:, :3]),
    "scatter_sub": lambda x: x.at[0].subtract(x[1]),
    "scatter_mul": lambda x: x.at[:, jnp.array([1, 3])].multiply(x[:, :2], unique_indices=True),
    "scatter outside": lambda x: x.at[jnp.array([2, 7])].add(x[:2]),
    "reduce_sum": lambda x: x.sum(0),
    "weighted sum": lambda x: x @ jnp.arange(1.0, 5),
    "batched weighted sum": lambda x: jnp.einsum("bi,bi->b", x, jnp.ones((3, 4))),
    "optimization_barrier": lambda x: jax.lax.optimization_barrier(x),
}


def related(function, x):
    """(element of x, element of the result) along the maps of all its equations."""
    program, _ = stage(
        lambda x: [function(x)],
        [jax.ShapeDtypeStruct(x.shape, x.dtype)],
        [True],
        ControlFlowPolicy(),
    )
    ways = {program.inputs[0]: {(k, k) for k in range(x.size)}}
    for e in program.equations:
        for v, influence in zip(e.inputs, influences(e), strict=True):
            for m in influence if v in ways else ():
                source, target = m.pairs(v.size)
                moved = {(int(s), int(t)) for s, t in zip(source, target, strict=True)}
                met = {(a, t) for a, b in ways[v] for s, t in moved if s == b}
                ways.setdefault(e.outputs[m.output], set()).update(met)
    return ways[program.outputs[0]]


@pytest.mark.parametrize("name", MOVES)
def test_the_influence_is_where_the_derivative_is(name):
    x = draw(5, 3, 4) + 3.0
    jacobian = np.asarray(jax.jacrev(MOVES[name])(x)).reshape(-1, x.size)
    assert related(MOVES[name], x) == {(int(i), int(j)) for j, i in np.argwhere(jacobian)}


@pytest.mark.parametrize("name", ["reshape", "expand"])
def test_what_keeps_the_order_needs_no_numbers(name):
    shape = jax.ShapeDtypeStruct((3, 4), jnp.float64)
    program, _ = stage(lambda x: [MOVES[name](x)], [shape], [True], ControlFlowPolicy())
    [[only]] = influences(program.equations[0])
    assert only.in_order
