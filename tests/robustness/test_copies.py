"""Copies of learners compute with their own states, and what is donated is nobody else's."""

import copy
import functools

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import braintrace
from braintrace.frontends.brainstate._learner import ModuleLearner
from braintrace.learner import _functional, _state

from .importable import FRONT_ENDS, B, I, N, T, gradient, learner_of, loss, xs
from .test_states import ALGORITHMS, made

pytestmark = pytest.mark.usefixtures("single_precision")

graph = brainstate.graph
BRAINSTATE_COPIES = {
    "deepcopy": copy.deepcopy,
    "clone": graph.clone,
    "split and merge": lambda L: graph.treefy_merge(*graph.treefy_split(L)),
    "a copy of a copy": lambda L: graph.clone(copy.deepcopy(L)),
}
NNX_COPIES = {
    "deepcopy": copy.deepcopy,
    "clone": nnx.clone,
    "split and merge": lambda L: nnx.merge(*nnx.split(L), copy=True),
    "a copy of a copy": lambda L: nnx.clone(copy.deepcopy(L)),
}


def weights_of(learner):
    return learner.model.states(brainstate.ParamState)


def values(learner):
    return {path: state.value for path, state in learner.states().items()}


def same(one, other):
    one, other = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def brainstate_learner(algorithm="d_rtrl", vmap=False, **options):
    brainstate.random.seed(0)
    cells = brainstate.nn.Sequential(brainstate.nn.GRUCell(I, N), brainstate.nn.Linear(N, 2))
    return braintrace.compile(cells, algorithm, xs()[0], batch_size=B, seed=0, vmap=vmap, **options)


def driven(learner):
    reset = jnp.zeros((T, B), bool).at[2, 0].set(True)
    step = lambda x: loss(learner(x))
    return learner.etrace_grad(xs(), step_fn=step, reset=reset, window=2, return_value=True)


def halved(learner):
    """What a learner computes whose weights are halved, and the states that it ends with."""
    for state in weights_of(learner).values():
        state.value = jax.tree.map(lambda v: 0.5 * v, state.value)
    evolved = learner.etrace_evolve(xs(), return_outputs=True)
    found = learner(xs()[0]), driven(learner), evolved, values(learner)
    learner.reset_state(model=True)
    return found, values(learner)


@functools.cache
def plainly_halved(vmap):
    """The same of a learner that is no copy."""
    return halved(brainstate_learner(vmap=vmap))


@pytest.mark.parametrize(
    ("way", "vmap"), [*((way, False) for way in BRAINSTATE_COPIES), ("deepcopy", True)]
)
def test_a_copy_of_a_brainstate_learner_has_its_own_states(way, vmap):
    learner = brainstate_learner(vmap=vmap)
    copied, before = BRAINSTATE_COPIES[way](learner), values(learner)
    assert same(halved(copied), plainly_halved(vmap))
    assert same(values(learner), before)
    assert not same(learner(xs()[0]), plainly_halved(vmap)[0][0])
    assert copied.path_to_states.keys() == learner.path_to_states.keys()


def test_a_copy_checks_its_own_gradients():
    copied = copy.deepcopy(brainstate_learner())
    assert copied.check_gradients(xs(), step_fn=lambda x: loss(copied(x))).rows


def test_without_states_of_its_own_a_copy_would_compute_with_the_originals(monkeypatch):
    learner = brainstate_learner()
    copied = copy.deepcopy(learner)
    monkeypatch.setattr(ModuleLearner, "of_copy", lambda self, model: self)
    monkeypatch.setattr(ModuleLearner, "check_states", lambda self: None)
    for state in weights_of(copied).values():
        state.value = jax.tree.map(jnp.zeros_like, state.value)
    assert copied(xs()[0]).any()


def test_a_copy_inside_a_transformation():
    learner = brainstate_learner()
    graphdef, states = graph.treefy_split(learner)
    assert isinstance(hash(graphdef), int)

    @jax.jit
    def step(states, x):
        merged = graph.treefy_merge(graphdef, states)
        return merged(x), graph.treefy_states(merged)

    for x in xs()[:2]:
        _, states = step(states, x)
    before = values(learner)
    np.testing.assert_allclose(graph.treefy_merge(graphdef, states)(xs()[2]), _third(learner))
    assert not same(values(learner), before)


def _third(learner):
    return [learner(x) for x in xs()[:3]][-1]


def test_a_learner_takes_a_copy_of_its_model_and_no_other():
    learner = brainstate_learner()
    learner.model = graph.clone(learner.model)
    for state in weights_of(learner).values():
        state.value = jax.tree.map(jnp.zeros_like, state.value)
    assert not learner(xs()[0]).any()
    learner.model = brainstate.nn.Linear(I, N)
    with pytest.raises(braintrace.UsageError, match="not the one that was compiled"):
        learner(xs()[0])


@pytest.mark.parametrize("way", NNX_COPIES)
def test_a_copy_of_an_nnx_learner_has_its_own_states(way):
    learner = learner_of("nnx")[0]
    copied, plain = NNX_COPIES[way](learner), learner_of("nnx")[0]
    before = jax.tree.map(np.asarray, nnx.state(learner))
    for of in (copied, plain):
        of.model.w[...] = 0.5 * of.model.w[...]
    assert same(copied(xs()[0]), plain(xs()[0]))
    given = [("nnx", of, None, None) for of in (copied, plain)]
    assert same(*(gradient(*one) for one in given))
    assert same(nnx.state(copied), nnx.state(plain))
    assert same(nnx.state(learner), before)


@pytest.mark.parametrize("front_end", ["function", "equinox"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_pure_learner_computes_the_same(front_end, way):
    learner, model, carry = learner_of(front_end)
    given = front_end, way(learner), model, carry
    assert same(gradient(*given), gradient(front_end, learner, model, carry))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_shallow_copy_is_not_compiled_again(front_end):
    learner = learner_of(front_end)[0]
    copied = copy.copy(learner)
    assert type(copied) is type(learner) and copied.graph is learner.graph


# Buffers
# --------------------------------------------------------------------------------------------------


def donated(tree):
    """Donate every array of a tree to a program."""
    jax.jit(lambda tree: jax.tree.map(lambda v: v + 1, tree), donate_argnums=0)(tree)


def doubled(p, h, x):
    """Its carry holds one value twice, and its input."""
    h = 0.9 * h[0] + x @ p
    return (h, h, x), h


def doubled_parts():
    """(params, carry, learner); the same array stands twice in the carry."""
    params, zero, x = jnp.ones((I, N)), jnp.zeros((B, N)), jnp.zeros((B, I))
    carry = zero, zero, x
    learner = braintrace.compile(doubled, "d_rtrl", x, params=params, carry=carry)
    return params, carry, learner


def donate_everything():
    """What is left after every state was donated: the gradient with a reset."""
    params, carry, learner = doubled_parts()
    inputs, reset = xs(), jnp.zeros((T, B), bool).at[2].set(True)
    of = lambda s: learner.etrace_grad(params, s, inputs, loss_fn=loss, reset=reset)
    expected = of(learner.init(params, carry))[0]
    donated(learner.init(params, carry))
    donated(learner.update(params, learner.init(params, carry), inputs[0])[0])
    donated(of(learner.init(params, carry))[1])
    donated(learner.etrace_evolve(params, learner.init(params, carry), inputs)[0])
    donated(carry[:1])  # the user's own
    assert not any(v.is_deleted() for v in jax.tree.leaves((params, inputs)))
    new = jax.tree.map(jnp.zeros_like, learner.initial)
    return expected, of(learner.init(params, new))[0]


def test_a_donated_state_is_nobody_elses():
    assert same(*donate_everything())


def test_without_copies_it_would_be(monkeypatch):
    for module in (_state, _functional):
        monkeypatch.setattr(module, "owned", lambda tree: jax.tree.map(jnp.asarray, tree))
    with pytest.raises((RuntimeError, ValueError), match=r"deleted|donate"):
        donate_everything()


@pytest.mark.parametrize("name", [*ALGORITHMS, "doubled"])
def test_no_array_stands_twice_in_a_state(name):
    if name == "doubled":
        params, carry, learner = doubled_parts()
        start = learner.init(params, carry)
    else:
        learner, params, start = made(name)
    x = jnp.zeros((B, I))
    target = {"y_target": jnp.zeros((B, 2))} if name.startswith("osttp") else {}
    for state in (start, learner.update(params, start, x, **target)[0]):
        arrays = [v for v in jax.tree.leaves(state) if v.size]
        assert len({v.unsafe_buffer_pointer() for v in arrays}) == len(arrays)


@pytest.mark.parametrize("name", ["eprop random", "osttp", "otpe"])
def test_a_donated_state_has_no_array_of_the_rule(name):
    learner, params, start = made(name)
    before = jax.tree.map(np.asarray, start)
    donated(learner.init(params, start.carry))
    assert same(learner.init(params, before.carry), before)


def test_a_brainstate_learner_keeps_what_a_reset_goes_back_to():
    learner = brainstate_learner()
    first = [np.asarray(v) for v in jax.tree.leaves(learner.functional.initial)]
    for _ in range(2):
        donated({k: s.value for k, s in enumerate(learner.hidden_states.values())})
        learner.reset_state(model=True)
        hidden = [s.value for s in learner.hidden_states.values()]
        assert same(hidden, first)
    driven(learner)


def test_an_nnx_learner_keeps_what_a_reset_goes_back_to():
    carry = jnp.zeros((B, N))
    cell = nnx.GRUCell(I, N, rngs=nnx.Rngs(0))
    learner = braintrace.compile(cell, "d_rtrl", xs()[0], carry=carry)
    for _ in range(2):
        donated(learner.carry.get_value())
        learner.reset_state(model=True)
        assert not learner.carry.get_value().any()
    assert not carry.is_deleted()
    learner.etrace_grad(xs(), loss_fn=loss, reset=jnp.ones((T, B), bool))


def test_a_donated_equinox_state_leaves_the_module_alone():
    learner, model, carry = learner_of("equinox")
    state = learner.init(model, carry)
    step = lambda m, s, x: learner.update(m, s, x)[0]
    for x in xs():
        state = eqx.filter_jit(step, donate="all-except-first")(model, state, x)
    assert not any(v.is_deleted() for v in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    assert not carry.is_deleted()
