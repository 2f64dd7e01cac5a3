"""The key of the rules that draw: what it may be, what depends on it, and where it goes."""

import dataclasses
import functools
import io
import pickle

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

import braintrace
from braintrace import UsageError
from braintrace.core.traces import draws_in

B, I, N, T = 2, 3, 4, 5


def drawn(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


PARAMS = {"W": drawn(0, I, N), "U": drawn(1, N, N)}
H, XS = drawn(2, B, N), drawn(3, T, B, I)


def step(w, u, h, x):
    return jnp.tanh(0.5 * h + x @ w + h @ u)


def cell(p, h, x):
    h = step(p["W"], p["U"], h, x)
    return h, h


def loss(out):
    return jnp.square(out).sum(-1)


@functools.cache
def learner(rule="uoro", **options):
    return braintrace.compile(cell, rule, XS[0], params=PARAMS, carry=H, **options)


def gradient(this, state, xs=XS, **options):
    """(gradient, state)."""
    given = {"loss_fn": loss, "reduction": "sum", **options}
    return this.etrace_grad(PARAMS, state, xs, **given)[:2]


def leaves(tree):
    return [np.asarray(v) for v in jax.tree.leaves(tree)]


def assert_equal(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def differ(a, b):
    return all(np.abs(x - y).max() > 1e-6 for x, y in zip(leaves(a), leaves(b), strict=True))


def of_key(key, this=None, **options):
    this = this or learner()
    return gradient(this, this.init(PARAMS, H, key=key), **options)[0]


def test_a_whole_number_is_the_key_of_it():
    first = of_key(3)
    for key in (np.int64(3), jax.random.key(3), jax.random.PRNGKey(3), jnp.asarray(3)):
        assert_equal(of_key(key), first)
    assert_equal(jax.jit(of_key)(3), first)
    assert_equal(of_key(0), gradient(learner(), learner().init(PARAMS, H))[0])  # the default
    for key in (4, -3, 3 + (1 << 40), jax.random.key(3, impl="rbg")):  # controls
        assert differ(of_key(key), first)


@pytest.mark.parametrize(
    "key",
    [None, 1.5, "x", True, [1], jnp.ones(2), jnp.arange(4), jax.random.split(jax.random.key(0))],
)
@pytest.mark.parametrize("rule", ["uoro", "d_rtrl"])
def test_another_key_is_refused(rule, key):
    with pytest.raises(UsageError, match="Invalid key"):
        learner(rule).init(PARAMS, H, key=key)


def test_a_map_over_keys_is_a_loop():
    keys = jax.random.split(jax.random.key(1), 3)
    mapped = jax.vmap(of_key)(keys)
    assert_equal(mapped, jax.tree.map(lambda *v: jnp.stack(v), *map(of_key, keys)))
    assert_equal(
        jax.vmap(of_key)(jnp.arange(2)), jax.tree.map(lambda *v: jnp.stack(v), of_key(0), of_key(1))
    )


def test_a_sequence_goes_on_where_it_was():
    this = learner()
    start = this.init(PARAMS, H, key=2)
    whole, end = gradient(this, start)
    first, middle = gradient(this, start, XS[:2])
    second, last = gradient(this, middle, XS[2:])
    assert_equal(jax.tree.map(jnp.add, first, second), whole)
    assert_equal(last.traces, end.traces)
    evolved, _ = this.etrace_evolve(PARAMS, start, XS)
    assert_equal(evolved.traces, end.traces)
    # nothing is drawn of a state that is not kept
    assert_equal(gradient(this, start, return_state=False)[0], whole)


def test_samples_have_draws_of_their_own():
    """The same data in both: another estimate each, and each its own whatever the other has."""
    this, same = learner(), jnp.repeat(XS[:, :1], B, 1)
    start = this.init(PARAMS, jnp.repeat(H[:1], B, 0), key=1)
    _, state = gradient(this, start, same)
    weights = state.traces.weights[0]
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    _, other = gradient(this, start, same.at[:, 1].add(1.0))
    assert_equal(other.traces.weights[0][0], weights[0])


def test_a_reset_leaves_the_key_and_goes_on_drawing():
    this, marks = learner(), jnp.zeros((T, B), bool).at[2, 1].set(True)
    start = this.init(PARAMS, H, key=1)
    _, state = gradient(this, start, reset=marks)
    [before], [after] = draws_in(start.traces), draws_in(state.traces)
    assert_equal(after.key, before.key)
    assert after.steps.tolist() == [T] * B
    # the second sequence of the sample has other numbers than a first one of the same data
    again = start.carry.at[1].set(H[1])
    _, fresh = gradient(this, dataclasses.replace(start, carry=again), XS[2:])
    assert np.abs(fresh.traces.state[1] - state.traces.state[1]).max() > 1e-3
    moved = before._replace(steps=before.steps + 2)  # and those of its own steps
    late = dataclasses.replace(start, traces=start.traces._replace(draws=moved))
    assert_equal(gradient(this, late, XS[2:])[1].traces.state[1], state.traces.state[1])


def test_traces_that_are_not_formed_hold_the_key_all_the_same():
    this = learner()
    state = this.init(PARAMS, H, key=3, traces=False)
    assert_equal(gradient(this, state)[0], of_key(3))


def test_nothing_depends_on_the_key_of_a_rule_that_does_not_draw():
    this = learner("d_rtrl")
    assert this.init(PARAMS, H, key=3, traces=False).traces is None
    assert_equal(of_key(3, this), of_key(0, this))


@pytest.mark.parametrize("rule", ["uoro", "kf_rtrl", "ok_rtrl"])
def test_a_state_in_a_file_draws_on(rule):
    this = learner(rule)
    _, state = gradient(this, this.init(PARAMS, H, key=4), XS[:2])
    expected = gradient(this, state, XS[2:])[0]
    assert_equal(gradient(this, pickle.loads(pickle.dumps(state)), XS[2:])[0], expected)
    like = this.init(PARAMS, H)
    read = serialization.from_bytes(like, serialization.to_bytes(state))
    assert_equal(gradient(this, read, XS[2:])[0], expected)
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    stored = np.load(file)
    again = jax.tree.structure(state).unflatten([jnp.asarray(stored[k]) for k in stored.files])
    assert_equal(gradient(this, again, XS[2:])[0], expected)
    assert differ(gradient(this, like, XS[2:])[0], expected)  # control
    plan = this.memory_plan(T).traces
    assert plan == sum(v.nbytes for v in jax.tree.leaves(state.traces))


def test_a_window_at_once_is_bptt_and_the_product_at_its_entry():
    """The multi-step form: the whole influence inside the window, the estimate before it."""
    this = learner()
    _, entry = gradient(this, this.init(PARAMS, H, key=1), XS[:2])

    def windowed(params, carry):
        state = dataclasses.replace(entry, carry=carry)
        new, outs = this.update_window(params, state, XS[2:], full=True)
        return loss(outs).sum(), new.traces

    found, traces = jax.grad(windowed, has_aux=True)(PARAMS, entry.carry)

    def plain(params, carry):
        outs = jax.lax.scan(lambda h, x: cell(params, h, x), carry, XS[2:])[1]
        return loss(outs).sum()

    inside, a = jax.grad(plain, (0, 1))(PARAMS, entry.carry)
    along = (a * entry.traces.state).sum(1)
    names = [this.graph.parameters[k].path[2:-2] for s in this.graph.sites for k in s.params]
    for name, w in zip(names, entry.traces.weights, strict=True):
        expected = inside[name] + jnp.einsum("b,bij->ij", along, w)
        np.testing.assert_allclose(found[name], expected, rtol=1e-10)
        assert np.abs(expected - inside[name]).max() > 1e-3
    assert_equal(traces, gradient(this, entry, XS[2:])[1].traces)


# Front ends


class OfBrainstate(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u = brainstate.ParamState(PARAMS["W"]), brainstate.ParamState(PARAMS["U"])
        self.h = brainstate.HiddenState(H)

    def update(self, x):
        self.h.value = step(self.w.value, self.u.value, self.h.value, x)
        return self.h.value


class OfNNX(nnx.Module):
    def __init__(self):
        self.w, self.u = nnx.Param(PARAMS["W"]), nnx.Param(PARAMS["U"])

    def __call__(self, h, x):
        h = step(self.w[...], self.u[...], h, x)
        return h, h


class OfEquinox(eqx.Module):
    w: jax.Array
    u: jax.Array

    def __call__(self, x, h):
        return step(self.w, self.u, h, x)


def test_modules_draw_what_functions_draw():
    expected = of_key(6)
    module = OfEquinox(PARAMS["W"], PARAMS["U"])
    this = braintrace.compile(module, "uoro", XS[0], carry=H)
    state = this.init(module, H, key=6)
    found = this.etrace_grad(module, state, XS, loss_fn=loss, reduction="sum")[0]
    assert_equal((found.u, found.w), (expected["U"], expected["W"]))

    this = braintrace.compile(OfNNX(), "uoro", XS[0], carry=H)
    given = {"loss_fn": loss, "reduction": "sum"}
    first = this.etrace_grad(XS, **given)[0]
    assert_equal((first["u"], first["w"]), (of_key(0)["U"], of_key(0)["W"]))
    this.reset_state(model=True)  # the numbers go on
    assert differ(this.etrace_grad(XS, **given)[0], first)
    this.reset_state(model=True, key=6)
    found = this.etrace_grad(XS, **given)[0]
    assert_equal((found["u"], found["w"]), (expected["U"], expected["W"]))

    this = braintrace.UORO(OfBrainstate())
    this.compile_graph(XS[0])
    find = lambda: this.etrace_grad(XS, loss_fn=loss, reduction="sum")
    first = find()
    this.reset_state(model=True)
    assert differ(find(), first)
    this.reset_state(model=True, key=6)
    found = find()
    assert_equal((found["u",], found["w",]), (expected["U"], expected["W"]))
    assert this.etrace.value.draws.key.dtype == jnp.uint32
