"""The batch is proven: the program of one sample, on each sample, is the program of all."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.cell import Tree
from braintrace.core.analysis import BatchAxis
from braintrace.core.analysis._batch import BatchClaim, find_batch
from braintrace.core.analysis._dependence import dependence
from braintrace.core.analysis._sample import OneSample
from braintrace.core.jaxpr import ControlFlowPolicy, Var, evaluate, reader, stage
from zoo import CASES

T, B = 2, 3
SYSTEMS = ("linear_solve", "custom_linear_solve")  # whose inner programs stay those of all samples


def staged(cell, params, carry, x):
    """(program, its inputs' values): parameters, carry and x, flat."""
    trees = [Tree.of(v) for v in (params, carry, x)]
    counts = np.cumsum([len(t.leaves) for t in trees])

    def flat(*leaves):
        parts = (leaves[: counts[0]], leaves[counts[0] : counts[1]], leaves[counts[1] :])
        new, out = cell(*(t.unflatten(p) for t, p in zip(trees, parts, strict=True)))
        return [*jax.tree.leaves(new), *jax.tree.leaves(out)]

    leaves = [v for tree in (params, carry, x) for v in jax.tree.leaves(tree)]
    avals = [jax.ShapeDtypeStruct(jnp.shape(v), v.dtype) for v in leaves]
    relevant = [k < counts[1] for k in range(len(leaves))]
    program, _ = stage(flat, avals, relevant, ControlFlowPolicy())
    return program, leaves, counts


def split(program, counts, claim):
    deps = dependence(
        program.equations,
        program.inputs[: counts[0]],
        [v for v in program.inputs[counts[0] : counts[1]] if v.differentiable],
    )
    carry, xs = program.inputs[counts[0] : counts[1]], program.inputs[counts[1] :]
    return find_batch(program, carry, xs, claim, deps)


def convention(program, counts, size, said=False, axis=...):
    every = lambda n: (axis,) * int(n)
    return BatchClaim(size, every(counts[1] - counts[0]), every(counts[2] - counts[1]), said)


def differences(program, leaves, batch):
    """For each variable with a batch axis, how far its value is from those of the samples, made by
    the equation of one sample.
    """
    env = dict(zip(program.inputs, leaves, strict=True))
    evaluate(program.equations, env)
    read, one = reader(env), OneSample(batch)
    found = []
    for b in range(batch.size):
        own = {}
        for e in program.equations:
            part = one.equation(e)
            for k, (v, full) in enumerate(zip(part.inputs, e.inputs, strict=True)):
                if v not in own and isinstance(v, Var):
                    axis = batch.operand(e, k)
                    value = jnp.asarray(read(full))
                    own[v] = value if axis is None else axis.apart(value)[b]
            solves = e.primitive.name in SYSTEMS
            if not solves and any(v in batch.axes for v in e.outputs):
                evaluate([part], own)
                for v, full in zip(part.outputs, e.outputs, strict=True):
                    if (axis := batch.axes.get(full)) is not None and full.differentiable:
                        want = np.asarray(axis.apart(read(full))[b])
                        found.append(np.abs(np.asarray(own[v]) - want).max(initial=0))
            else:
                for v, full in zip(part.outputs, e.outputs, strict=True):
                    axis = batch.axes.get(full)
                    own[v] = read(full) if axis is None else axis.apart(read(full))[b]
    return found


#: A solver is bound to the shapes of all samples; `test_samples_are_apart_in_systems` has it.
SOLVERS = {"solved", "whitened_input"}
IN_FRONT = [n for n, case in CASES.items() if case.apart and not case.compiled and n not in SOLVERS]


@pytest.mark.parametrize("name", IN_FRONT)
def test_the_program_of_one_sample_on_each_is_that_of_all(name):
    case = CASES[name]
    params, carry, xs, _ = case.make(jax.random.key(1), T, B)
    program, leaves, counts = staged(case.cell, params, carry, xs[0])
    axis = 1 if case.axes == (1, 1) else ...
    batch = split(program, counts, convention(program, counts, B, said=True, axis=axis))
    assert batch is not None
    found = differences(program, leaves, batch)
    assert found
    assert max(found) < 1e-12


def test_a_wrong_axis_is_noticed():
    cell = lambda p, h, x: (0.5 * h + x @ p, h)
    p, h, x = jnp.eye(3) + 1, jnp.ones((3, 3)), jnp.arange(9.0).reshape(3, 3)
    program, leaves, counts = staged(cell, p, h, x)
    batch = split(program, counts, convention(program, counts, 3))
    assert max(differences(program, leaves, batch)) == 0
    last = program.outputs[0]
    batch.axes[last] = BatchAxis(1, 3)
    assert max(differences(program, leaves, batch)) > 1


def found_axes(cell, params, carry, x, size, said=False):
    program, _, counts = staged(cell, params, carry, x)
    batch = split(program, counts, convention(program, counts, size, said))
    return None if batch is None else [batch.axes.get(v) for v in program.outputs], batch


W = jnp.ones((4, 4)) / 4


def test_the_step_says_where_the_batch_of_a_leaf_is():
    """A history (time, batch, neurons), as wide as it is long."""

    def cell(p, carry, x):
        h, history = carry
        h = 0.5 * h + x @ p + history[0]
        return (h, jnp.concatenate([history[1:], h[None]])), h

    axes, _ = found_axes(cell, W, (jnp.ones((4, 4)), jnp.ones((4, 4, 4))), jnp.ones((4, 4)), 4)
    assert axes == [BatchAxis(0, 4), BatchAxis(1, 4), BatchAxis(0, 4)]


def test_a_merged_axis_keeps_its_samples():
    def cell(p, h, x):
        each = (x.reshape(6, 4) @ p).reshape(2, 3, 4)  # (batch, parts) in one axis and back
        return h + each.sum(1), h

    axes, _ = found_axes(cell, W, jnp.ones((2, 4)), jnp.ones((2, 3, 4)), 2)
    assert axes == [BatchAxis(0, 2)] * 2


SYSTEM = 9 * jnp.eye(4) + jnp.arange(16.0).reshape(4, 4) / 16


@pytest.mark.parametrize(
    "apart",
    [
        lambda a: jnp.concatenate(jnp.split(a, 2, axis=1)[::-1], 1),
        lambda a: jnp.fft.fft(a).real,
        lambda a: jnp.cumsum(a, 1),
        lambda a: a.at[:, 1:].multiply(2.0),
        lambda a: a[:, jnp.array([2, 0, 1, 3])],
        lambda a: jax.vmap(lambda v, k: v[k])(a, jnp.array([[1], [0], [2]])),
        lambda a: jax.nn.gelu(a) * jax.nn.softmax(a, -1),
        lambda a: jax.lax.conv(a[:, None], jnp.ones((1, 1, 3)), (1,), "SAME")[:, 0],
        lambda a: jnp.einsum("bi,bj->bij", a, a).max(2),
        lambda a: jax.lax.top_k(a, 4)[0],
    ],
)
def test_samples_that_stay_apart_are_proven(apart):
    cell = lambda p, h, x: (0.5 * h + apart(jnp.tanh(x @ p + h)), h)
    h, x = jnp.ones((3, 4)) / 3, jnp.arange(12.0).reshape(3, 4) / 7
    program, leaves, counts = staged(cell, W, h, x)
    batch = split(program, counts, convention(program, counts, 3))
    assert batch is not None
    found = differences(program, leaves, batch)
    assert max(found) < 1e-5  # float32


@pytest.mark.parametrize(
    "solve",
    [
        lambda a: jnp.linalg.solve(SYSTEM, a.T).T,
        lambda a: jax.vmap(lambda v: jnp.linalg.solve(SYSTEM + jnp.outer(v, v), v))(a),
    ],
)
def test_samples_are_apart_in_systems(solve):
    cell = lambda p, h, x: (0.5 * h + solve(jnp.tanh(x @ p + h)), h)
    h, x = jnp.ones((3, 4)), jnp.arange(12.0).reshape(3, 4) / 7
    axes, batch = found_axes(cell, W, h, x, 3)
    assert axes == [BatchAxis(0, 3)] * 2 and batch.meetings == ()
    moved = np.abs(cell(W, h, x.at[1].add(1.0))[0] - cell(W, h, x)[0]).max(1) > 1e-3
    assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("meet", "same_for_all"),
    [
        (lambda a: a - a.mean(0), True),
        (lambda a: a * a[0], True),
        (lambda a: jnp.cumsum(a, 0), False),
        (lambda a: a[::-1], False),
        (lambda a: a @ a.T @ a, False),
        (lambda a: jnp.sort(a, 0), False),
        (lambda a: jnp.roll(a, 1, 0), False),
        (lambda a: jnp.linalg.solve(a @ a.T + 9 * jnp.eye(3), a), False),
    ],
)
def test_samples_that_meet_are_found(meet, same_for_all):
    """What differs along axis 0 refutes the convention that samples lie there."""

    def cell(p, h, x):
        return 0.5 * h + meet(jnp.tanh(x @ p + h)), h

    h, x = jnp.ones((3, 4)), jnp.ones((3, 4))
    _, said = found_axes(cell, W, h, x, 3, said=True)
    assert said.meetings
    _, convention = found_axes(cell, W, h, x, 3)
    assert convention.meetings if same_for_all else convention is None
    apart = lambda p, h, x: (0.5 * h + jnp.tanh(x @ p + h), h)
    assert found_axes(apart, W, h, x, 3, said=True)[1].meetings == ()  # control


def test_no_batch_is_found_where_neurons_lie_on_axis_0():
    cell = lambda p, h, x: (0.5 * h + jnp.tanh(h) @ p + x @ p, h)
    assert found_axes(cell, W, jnp.ones(4), jnp.ones(4), 4)[1] is None


def test_the_analysis_of_many_neurons_makes_no_lists_of_their_elements():
    """A state of 2 x 200,000 numbers, with a surrogate, a scalar factor and a reset."""
    spike = jax.custom_jvp(lambda v: (v > 0).astype(v.dtype))
    spike.defjvp(lambda p, t: (spike(*p), t[0] / (1 + jnp.abs(p[0])) ** 2))

    def cell(p, carry, x):
        v, a = carry
        z = spike(v - 1 - 0.2 * a)
        return (0.9 * v * (1 - z) + x @ p["W"] + p["b"], 0.95 * a + z), z

    n = 200_000
    params, carry = {"W": jnp.ones((2, n)), "b": jnp.ones(n)}, (jnp.zeros(n), jnp.zeros(n))
    tracemalloc.start()
    try:
        learner = braintrace.compile(cell, "d_rtrl", jnp.ones(2), params=params, carry=carry)
        compiled = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        np.ones((3, 2, n), np.float32)  # control
        assert compiled < 2 * 2 * n * 4 < tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert learner.graph.groups[0].positions == n


@pytest.mark.parametrize("size", [2, 64])
def test_nothing_that_is_kept_grows_with_the_batch(size):
    cell = lambda p, h, x: (jnp.tanh(0.5 * h + jnp.concatenate([x @ p, x @ p], -1)[:, 1:5]), h)
    learner = braintrace.compile(
        cell, "d_rtrl", jnp.ones((size, 4)), params=W, carry=jnp.ones((size, 4))
    )
    sizes = [len(v) for v in learner.graph.labels.values()]
    assert learner.graph.groups[0].positions == 4
    assert max(sizes) <= 8
