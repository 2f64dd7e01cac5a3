"""Small cells `(params, carry, x) -> (carry, out)`, with their gradients beside those of BPTT."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import braintrace

WAYS = ("step by step", "window 1", "window 3", "default window")
TOLERANCE = 1e-10


def draw(seed, *shape, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng([seed, *shape]).standard_normal(shape))


def loss(out):
    return jnp.sum(jnp.sin(out) ** 2)


def learner_of(cell, params, carry, xs, algorithm="d_rtrl", **options):
    first = jax.tree.map(lambda v: v[0], xs)
    return braintrace.compile(cell, algorithm, first, params=params, carry=carry, **options)


def trained(params):
    """The parameters that have a gradient, and a function that puts them among the others."""
    moving = {k: v for k, v in params.items() if jnp.issubdtype(v.dtype, jnp.inexact)}
    return moving, lambda some: {**params, **some}


def bptt(cell, params, carry, xs):
    moving, complete = trained(params)

    def total(some):
        step = lambda h, x: cell(complete(some), h, x)
        return jnp.sum(jax.vmap(loss)(lax.scan(step, carry, xs)[1]))

    return jax.grad(total)(moving)


def online(learner, params, carry, xs):
    """The gradients of the learner in all `WAYS`."""
    moving, complete = trained(params)
    state = learner.init(params, carry)
    found = {}
    total = jax.tree.map(jnp.zeros_like, moving)
    now = state
    for t in range(jax.tree.leaves(xs)[0].shape[0]):
        x = jax.tree.map(lambda v, t=t: v[t], xs)

        def objective(some, now=now, x=x):
            new, out = learner.update(complete(some), now, x)
            return loss(out), new

        gradient, now = jax.grad(objective, has_aux=True)(moving)
        total = jax.tree.map(jnp.add, total, gradient)
    found["step by step"] = total
    for way, window in (("window 1", 1), ("window 3", 3), ("default window", None)):
        gradient = learner.etrace_grad(
            params, state, xs, loss_fn=loss, reduction="sum", window=window
        )[0]
        found[way] = {k: gradient[k] for k in moving}
    return found


def errors(found, expected):
    """For each parameter the largest relative error over all ways; NaN where one is not finite."""
    return {
        k: max(
            float(jnp.linalg.norm(g[k] - v) / (jnp.linalg.norm(v) + 1e-300)) for g in found.values()
        )
        for k, v in expected.items()
    }


def assert_certificates(cell, params, carry, xs, algorithm="d_rtrl", approximate=(), **options):
    """Each parameter is exact and has BPTT's gradient in all ways, or is among those that are not
    exact and has another one, the same in all ways.
    """
    learner = learner_of(cell, params, carry, xs, algorithm, **options)
    found, expected = online(learner, params, carry, xs), bptt(cell, params, carry, xs)
    off = errors(found, expected)
    apart = errors(found, found["window 1"])
    for k in expected:
        kind = learner.graph.exactness(f"[{k!r}]").value
        assert (kind == "exact") == (k not in approximate), (k, kind)
        assert np.isfinite(off[k]) and jnp.linalg.norm(expected[k]) > 0.01, (k, off[k])
        assert (off[k] < TOLERANCE) == (kind == "exact"), (k, kind, off[k])
        assert apart[k] < TOLERANCE, (k, apart[k])
    return learner
