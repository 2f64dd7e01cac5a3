"""What the tests of the engine share: learners of zoo cells, their data, and distances of
gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from braintrace.core.engine import Rule
from braintrace.core.traces import PerParameter
from braintrace.learner import FunctionLearner
from zoo import CASES, loss

D_RTRL = Rule("D_RTRL", PerParameter())
#: Programs that are compiled once and run once.
QUICK = {"xla_backend_optimization_level": 0}
T, B = 5, 2


def learner_for(cell, params, carry, x, rule=D_RTRL, **options):
    return FunctionLearner(cell, rule, params, carry, x, **options)


@functools.cache
def data(name, steps=T, samples=None, seed=7):
    """params, carry, xs, ys of a case."""
    return CASES[name].make(jax.random.key(seed), steps, samples or CASES[name].B)


@functools.cache
def learner(name, samples=B):
    """The learner of a case; tests that only need some learner share it, and what it has
    compiled.
    """
    params, carry, xs, _ = data(name, samples=samples)
    return learner_for(CASES[name].cell, params, carry, xs[0])


def summed(out, target):
    """The loss of a step, summed over samples."""
    return jnp.sum(loss(out, target))


def stepwise(learner, params, state, xs, ys, loss_fn=summed):
    """Gradients of `update` step by step, added up: (gradients, state)."""

    def one(state_total, at):
        state, total = state_total
        x, y = at

        def objective(params):
            new, out = learner.update(params, state, x)
            return loss_fn(out, y), new

        gradients, new = jax.grad(objective, has_aux=True)(params)
        return (new, jax.tree.map(jnp.add, total, gradients)), None

    zero = jax.tree.map(jnp.zeros_like, params)
    (state, total), _ = jax.lax.scan(one, (state, zero), (xs, ys))
    return total, state


def windowed(learner, params, state, xs, ys, window, full=False):
    """The gradient of a run of `update_window` calls inside one objective: (gradients, state)."""

    def objective(params):
        now, total = state, 0.0
        for start in range(0, xs.shape[0], window):
            part = slice(start, start + window)
            now, outs = learner.update_window(params, now, xs[part], full=full)
            total += jnp.sum(jax.vmap(summed)(outs, ys[part]))
        return total, now

    return jax.grad(objective, has_aux=True)(params)


def distance(a, b):
    """Relative distance of two arrays."""
    a, b = np.asarray(a), np.asarray(b)
    size = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / (size if size > 0 else 1))


def distances(a, b):
    """Relative distance of each leaf of two trees, by path."""
    paths, structure = jax.tree_util.tree_flatten_with_path(b)
    assert jax.tree.structure(a) == structure, (jax.tree.structure(a), structure)
    return {
        jax.tree_util.keystr(p): distance(v, w)
        for v, (p, w) in zip(jax.tree.leaves(a), paths, strict=True)
    }


def assert_same(a, b, rtol=1e-10):
    """Every leaf of two trees agrees within a relative distance."""
    off = distances(a, b)
    assert all(d <= rtol for d in off.values()), off


def values(tree):
    """The tree with keys as their data, so that it can be compared."""
    return jax.tree.map(
        lambda v: jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v,
        tree,
    )


def total(trees):
    """Trees of one structure, added up."""
    trees = list(trees)
    return jax.tree.map(lambda *v: sum(v[1:], start=v[0]), *trees)
