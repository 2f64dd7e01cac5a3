"""The rules that draw are unbiased: means over keys and over signs; the variance falls with the
rank.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import checks
from braintrace.core.traces import Draws
from braintrace.core.traces._reduction import mixed, reduced

KEYS, N, STEPS = 10_000, 2, 4


def cell(p, h, x):
    h = jnp.tanh(0.5 * h + x @ p["W"] + h @ p["U"] + p["b"])
    return h, h @ p["o"]


def loss(out, y):
    return ((out - y) ** 2).sum(-1)


def drawn(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


PARAMS = {"W": drawn(0, 2, N), "U": drawn(1, N, N), "b": drawn(2, N), "o": drawn(3, N, 1)}
H, XS, YS = drawn(4, 1, N), drawn(5, STEPS, 1, 2), drawn(6, STEPS, 1, 1)
SITED = ("W", "U", "b")


def influence_of_uoro(traces, graph):
    parts = zip(graph.sites, traces.weights, strict=True)
    return {
        name_of(graph, site): jnp.einsum("n,...->n...", traces.state[0], w[0]).reshape(N, -1)
        for site, w in parts
    }


def influence_of_products(traces, graph):
    """The one sum of the cell: its data are side by side in the order of the sites."""
    [(left, right)] = [v for v in traces.terms if v is not None]
    whole = jnp.einsum("ri,rnm->nim", left[0], right[0])
    widths = [2 if site.is_operation else 1 for site in graph.sites]
    parts = jnp.split(whole, np.cumsum(widths)[:-1], axis=1)
    names = [name_of(graph, site) for site in graph.sites]
    return {name: part.reshape(N, -1) for name, part in zip(names, parts, strict=True)}


def name_of(graph, site):
    [k] = site.params
    return graph.parameters[k].path[2:-2]


def estimates(rule, influence, count, **options):
    """The gradient and the influence after the last step, for each of `count` keys."""
    learner = braintrace.compile(cell, rule, XS[0], params=PARAMS, carry=H, **options)

    def of_key(key):
        gradient, state, _ = learner.etrace_grad(
            PARAMS, learner.init(PARAMS, H, key=key), XS, YS, loss_fn=loss, reduction="sum"
        )
        found = influence(state.traces, learner.graph)
        return {k: gradient[k] for k in SITED}, found

    return jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(1), count))


@functools.cache
def truth():
    gradient, _ = checks.bptt_gradient(cell, PARAMS, H, XS, YS, loss_fn=loss, reduction="sum")

    def end(params):
        return jax.lax.scan(lambda h, x: (cell(params, h, x)[0], None), H, XS)[0][0]

    influence = jax.jacobian(end)(PARAMS)
    return {k: gradient[k] for k in SITED}, {k: influence[k].reshape(N, -1) for k in SITED}


def furthest(found, right):
    """The largest distance of a mean from the right value, in standard errors."""
    assert jax.tree.structure(found) == jax.tree.structure(right)
    most = 0.0
    for values, value in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        values = np.asarray(values)
        error = values.std(0) / np.sqrt(len(values))
        assert (error > 0).all()
        most = max(most, float((abs(values.mean(0) - value) / error).max()))
    return most


RULES = {
    "uoro": (influence_of_uoro, {}),
    "kf_rtrl": (influence_of_products, {}),
    "ok_rtrl": (influence_of_products, {"rank": 2}),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_mean_over_keys_is_the_influence_and_the_gradient(rule, monkeypatch):
    influence, options = RULES[rule]
    assert furthest(estimates(rule, influence, KEYS, **options), truth()) < 4

    # control: signs of which three in four are positive
    fair = Draws.signs

    def unfair(self, size, dtype):
        return jnp.maximum(*jnp.split(fair(self, 2 * size, dtype), 2, axis=1))

    monkeypatch.setattr(Draws, "signs", unfair)
    assert furthest(estimates(rule, influence, KEYS // 4, **options), truth()) > 8


def test_the_variance_falls_with_the_rank():
    spread = []
    for rule, options in (("uoro", {}), *(("ok_rtrl", {"rank": r}) for r in (1, 2, 4))):
        gradients, _ = estimates(rule, lambda *_: {}, 400, **options)
        spread.append(sum(float(v.var(0).sum()) for v in jax.tree.leaves(gradients)))
    assert spread[0] > 2 * spread[1] > 4 * spread[2] > 8 * spread[3] > 0, spread


SIZES = [(1, 3, 4), (2, 5, 7), (3, 4, 6), (4, 7, 5), (3, 6, 2)]  # rank, sizes of both sides
DECAYS = [1.0, 0.2, 0.0]  # from term to term; at 0 there is one alone


@pytest.mark.parametrize(
    ("choice", "rank", "inputs", "outputs"), [(mixed, *SIZES[0]), *((reduced, *s) for s in SIZES)]
)
def test_the_mean_over_all_signs_is_the_sum(choice, rank, inputs, outputs):
    """One term less, or one of two: enumerated, not drawn. One choice alone is far from it."""
    signs = jnp.asarray(list(itertools.product((1.0, -1.0), repeat=rank + 1)))
    for decay in DECAYS:
        left, right = drawn(7, rank + 1, inputs), drawn(8, rank + 1, outputs)
        right = right * decay ** jnp.arange(rank + 1)[:, None]
        u, a = jax.jit(jax.vmap(functools.partial(choice, left, right)))(signs)
        assert u.shape == (len(signs), rank, inputs)
        sums, whole = jnp.einsum("kri,krj->kij", u, a), left.T @ right
        size = float(jnp.linalg.norm(whole))
        np.testing.assert_allclose(sums.mean(0), whole, rtol=0, atol=1e-12 * size)
        spread = float(sums.std(0).max()) / size
        # what has no more dimensions than terms is kept as it is
        exact = (choice is reduced and min(inputs, outputs) <= rank) or decay == 0
        assert (spread < 1e-12) is exact, spread


def test_nothing_is_made_of_nothing():
    """Terms of zero, as there are before the first step."""
    for choice in (reduced, mixed):
        u, a = choice(jnp.zeros((2, 3)), jnp.zeros((2, 4)), jnp.ones(2))
        assert not u.any() and not a.any()
