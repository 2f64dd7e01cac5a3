"""Windows of rules whose traces are factors: the values of single steps, whatever the cell is made
of.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace

from ._front_end import assert_same, stepwise

T, B, I, N = 7, 2, 3, 4
RULES = {"pp_prop": {"decay_or_rank": 0.8}, "ottt": {"leak": 0.7}}

rng = np.random.default_rng(0)
W, V, C = (jnp.asarray(rng.normal(size=s)) for s in ((I, N), (I, N), (N, N)))
XS = jnp.asarray(rng.normal(size=(T, B, I)))


def complex_product(p, h, x):
    h = 0.9 * h + x @ (p["W"] + 1j * p["V"])
    return h, jnp.concatenate([h.real, h.imag], -1)


def variance(p, h, x):
    h = 0.9 * h + (x / jnp.sqrt(x.var(-1, keepdims=True) + 1)) @ p["W"]
    return h, h + h.var(-1, keepdims=True) @ p["V"][:1]


def solved(p, h, x):
    mixed = jnp.linalg.solve(jnp.eye(N) + 0.1 * C, jnp.eye(N) * x.shape[-1])
    h = 0.9 * h + (x @ p["W"]) @ mixed
    return h, h * p["V"].sum()


def matrix_state(p, S, x):
    S = 0.9 * S + (x @ p["W"])[:, :, None] * (x @ p["V"])[:, None, :]
    return S, S.sum(1)


def spectrum(p, h, x):
    h = 0.9 * h + jnp.fft.fft(x @ p["W"]).real
    return h, h * p["V"].sum()


def parameters_compared(p, h, x):
    """Boolean and integer values in the part of the cell that parameters alone make."""
    rank = jnp.argsort(p["V"][0])
    h = 0.8 * h + x @ p["W"] + 0.1 * jnp.where(p["V"][0] > 0, h, 0.5 * h)
    return h, h[:, rank]


def nothing_traced(p, h, x):
    h = 0.5 * h + jnp.tanh(x @ W + h @ C)
    return h, h @ p["W"].T * p["V"].sum()


def counted(p, carry, x):
    h, count, key = carry
    key, _ = jax.random.split(key)
    h = 0.8 * h + x @ p["W"] * (1 + 0.1 * count[:, None])
    return (h, count + 1, key), h * p["V"].sum()


def constant_leaf(p, carry, x):
    h, other = carry
    h = 0.8 * h + x @ p["W"]
    return (h, jnp.ones_like(other)), h + other @ p["V"]


REAL = jnp.asarray(rng.normal(size=(B, N)))
CELLS = {
    complex_product: REAL + 1j * REAL,
    variance: REAL,
    solved: REAL,
    matrix_state: jnp.asarray(rng.normal(size=(B, N, N))),
    spectrum: REAL,
    parameters_compared: REAL,
    nothing_traced: REAL,
    counted: (REAL, jnp.arange(B), jax.random.key(0)),
    constant_leaf: (REAL, jnp.zeros((B, I))),
}
PARAMS = {"W": W, "V": V}
RESET = jnp.zeros((T, B), bool).at[2, 0].set(True).at[3].set(True)


def squared(out):
    return (out**2).mean(-1)


def made(cell, rule, params=PARAMS, **options):
    carry = CELLS[cell]
    return braintrace.compile(cell, rule, XS[0], params=params, carry=carry, **options), carry


def gradient(learner, carry, window, reset=None, **options):
    state = learner.init(PARAMS, carry)
    found, state, info = learner.etrace_grad(
        PARAMS, state, XS, loss_fn=squared, window=window, reset=reset, **options
    )
    return found, state.traces, info.losses


@pytest.mark.parametrize("reset", [None, RESET], ids=["", "reset"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_window_has_the_values_of_single_steps(cell, rule, reset):
    learner, carry = made(cell, rule, **RULES[rule])
    single = gradient(learner, carry, 1, reset)
    for window in (3, None):
        assert_same(gradient(learner, carry, window, reset), single)
    assert np.linalg.norm(single[0]["W"]) > 1e-3
    other = gradient(learner, carry, 1, None if reset is not None else RESET)
    with pytest.raises(AssertionError):  # control
        assert_same(other[0], single[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", [complex_product, variance, matrix_state, nothing_traced])
def test_windows_are_the_sum_of_updates(cell, rule):
    learner, carry = made(cell, rule, **RULES[rule])
    total, _ = stepwise(
        learner, PARAMS, learner.init(PARAMS, carry), XS, XS, lambda out, y: squared(out).sum()
    )
    for window in (1, None):
        assert_same(gradient(learner, carry, window, reduction="sum")[0], total)


def replayed(step, h, ax, af):
    """The rule by its definition, for a state h <- D h + y with a constant D and drives y = x @ w:
    `step(w, e)` is the drive, `D` acts on states; W's gradient of squared losses of h.
    """
    drive, moved, outs = step
    total, ex = jax.tree.map(jnp.zeros_like, PARAMS), jnp.zeros((B, I))
    for t in range(T):
        h = jax.tree.map(jnp.add, moved(h), drive(PARAMS, XS[t]))
        ex = ax * ex + XS[t]

        def surrogate(p, t=t, h=h, ex=ex):
            k = jax.tree.map(jnp.zeros_like, h)
            for _ in range(t + 1):
                f = jax.tree.map(lambda y: (1 - af) * y, drive(p, ex))
                k = jax.tree.map(lambda a, b: af * a + b, moved(k), f)
            signal = jax.grad(lambda h: squared(outs(h)).sum())(h)
            dots = jax.tree.map(lambda a, b: jnp.vdot(a, b), signal, k)
            return sum(jax.tree.leaves(dots)) / (1 - af ** (t + 1))

        total = jax.tree.map(jnp.add, total, jax.grad(surrogate)(PARAMS))
    return total


REPLAYS = {
    # the complex network written in reals: real and imaginary part as two states
    complex_product: (
        lambda p, x: (x @ p["W"], x @ p["V"]),
        lambda h: jax.tree.map(lambda v: 0.9 * v, h),
        lambda h: jnp.concatenate(h, -1),
    ),
    variance: (
        lambda p, x: x @ p["W"],
        lambda h: 0.9 * h,
        lambda h: h + h.var(-1, keepdims=True) @ V[:1],
    ),
}


def test_complex_products_are_those_of_the_network_in_reals():
    learner, carry = made(complex_product, "pp_prop", decay_or_rank=(0.6, 0.8))
    start = carry.real, carry.imag
    expected = replayed(REPLAYS[complex_product], start, 0.6, 0.8)
    for window in (1, 3, None):
        assert_same(gradient(learner, carry, window, reduction="sum")[0], expected)
    with pytest.raises(AssertionError):  # control: another decay
        assert_same(
            gradient(learner, carry, None, reduction="sum")[0],
            replayed(REPLAYS[complex_product], start, 0.6, 0.7),
        )


def test_what_mixes_inside_a_step_is_instantaneous():
    """No state of a matrix belongs to one element of a key or a value: the gradient is that of the
    step alone.
    """
    learner, S = made(matrix_state, "pp_prop", decay_or_rank=0.8)
    expected = jax.tree.map(jnp.zeros_like, PARAMS)
    for x in XS:
        step = jax.grad(lambda p, S=S, x=x: squared(matrix_state(p, S, x)[1]).sum())(PARAMS)
        expected = jax.tree.map(jnp.add, expected, step)
        S, _ = matrix_state(PARAMS, S, x)
    for window in (1, 3, None):
        assert_same(gradient(learner, CELLS[matrix_state], window, reduction="sum")[0], expected)


def test_a_loss_with_effects_is_evaluated_once_a_step():
    seen = []

    def noisy(out):
        jax.debug.callback(lambda v: seen.append(float(v)), out.sum())
        return squared(out)

    learner, carry = made(variance, "pp_prop", decay_or_rank=0.8)
    state = learner.init(PARAMS, carry)
    found = learner.etrace_grad(PARAMS, state, XS, loss_fn=noisy)[0]
    jax.effects_barrier()
    assert len(seen) == T
    assert_same(found, gradient(learner, carry, None)[0])


def test_a_call_to_python_is_made_once_a_step():
    seen = []

    def double(v):
        seen.append(1)
        return 2 * v

    def cell(p, h, x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return variance(p, h, jax.pure_callback(double, shape, x))

    learner = braintrace.compile(
        cell, "pp_prop", XS[0], params=PARAMS, carry=REAL, decay_or_rank=0.8
    )
    for _ in range(2):  # at the first call the operation is looked at, too
        seen.clear()
        found = learner.etrace_grad(PARAMS, learner.init(PARAMS, REAL), XS, loss_fn=squared)[0]
        jax.block_until_ready(found)
    assert len(seen) == T
    plain = braintrace.compile(
        lambda p, h, x: variance(p, h, 2 * x),
        "pp_prop",
        XS[0],
        params=PARAMS,
        carry=REAL,
        decay_or_rank=0.8,
    )
    assert_same(found, plain.etrace_grad(PARAMS, plain.init(PARAMS, REAL), XS, loss_fn=squared)[0])


def test_an_operation_that_cannot_be_mapped_goes_step_by_step():
    from jax.extend.core import Primitive
    from jax.interpreters import ad, mlir

    stubborn = Primitive("stubborn")
    stubborn.def_abstract_eval(lambda v: v)
    mlir.register_lowering(stubborn, mlir.lower_fun(jnp.negative, multiple_results=False))
    ad.deflinear2(stubborn, lambda cotangent, v: [-cotangent])

    def gradient_of(function):
        def cell(p, h, x):
            h = 0.9 * h + x @ p["W"]
            return h, function(h) @ p["V"].T

        learner = braintrace.compile(
            cell, "pp_prop", XS[0], params=PARAMS, carry=REAL, decay_or_rank=0.8
        )
        return learner.etrace_grad(PARAMS, learner.init(PARAMS, REAL), XS, loss_fn=squared)[0]

    assert_same(gradient_of(stubborn.bind), gradient_of(jnp.negative))


@pytest.mark.parametrize("rule", RULES)
def test_a_value_of_the_enclosing_transformation(rule):
    """A label that `jit` traces, closed over by the loss and by the cell."""

    def run(label, window):
        def cell(p, h, x):
            h = 0.9 * h + x @ p["W"] + 0.1 * label[:, None]
            return h, h * p["V"].sum()

        learner = braintrace.compile(cell, rule, XS[0], params=PARAMS, carry=REAL, **RULES[rule])
        loss_fn = lambda out: -jnp.take_along_axis(jax.nn.log_softmax(out), label[:, None], 1)[:, 0]
        return learner.etrace_grad(
            PARAMS, learner.init(PARAMS, REAL), XS, loss_fn=loss_fn, window=window
        )[0]

    label = jnp.array([0, 2])
    for window in (1, None):
        assert_same(jax.jit(run, static_argnums=1)(label, window), run(label, 1))
    with pytest.raises(AssertionError):  # control: another label
        assert_same(run(label + 1, None), run(label, 1))


class Labelled(brainstate.nn.Module):
    """A model that holds its label."""

    def __init__(self, label):
        super().__init__()
        self.w, self.label = brainstate.ParamState(W), label

    def init_state(self, *_, **__):
        self.h = brainstate.HiddenState(jnp.zeros(N))

    def update(self, x):
        self.h.value = 0.9 * self.h.value + braintrace.matmul(x, self.w.value)
        return -jax.nn.log_softmax(self.h.value)[jnp.expand_dims(self.label, 0)][0]


@pytest.mark.parametrize("rule", ["d_rtrl", "pp_prop"])
def test_a_module_is_compiled_inside_jit(rule):
    def run(xs, label):
        net = Labelled(label)
        brainstate.nn.init_all_states(net)
        options = RULES.get(rule, {})
        learner = braintrace.compile(net, rule, xs[0], batch_size=None, **options)
        return learner.etrace_grad(xs, step_fn=learner)

    xs, label = XS[:, 0], jnp.array(2)
    (found,) = jax.jit(run)(xs, label).values()
    (expected,) = run(xs, label).values()
    assert_same(found, expected)
    assert np.linalg.norm(expected) > 1e-3
    (other,) = jax.jit(run)(xs, label + 1).values()
    assert np.linalg.norm(other - expected) > 1e-3  # control
