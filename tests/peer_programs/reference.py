"""What the programs compare with: backpropagation through time of the same step function, by
brainstate alone.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np


def bptt(model, step_loss, *sequences, reduce=jnp.sum):
    """The gradient of `reduce` of the losses over a sequence, from the model's present states,
    which it leaves as they are.
    """
    states = {**model.states(brainstate.ShortTermState), **model.states(brainstate.LongTermState)}
    before = {
        path: state.value
        for path, state in states.items()
        if not isinstance(state, brainstate.ParamState)
    }
    total = lambda: reduce(brainstate.transform.for_loop(step_loss, *sequences))
    gradients = brainstate.transform.grad(total, model.states(brainstate.ParamState))()
    for path, value in before.items():
        states[path].value = value
    return gradients


def distance(found, expected):
    """The largest relative distance between the leaves of two trees of gradients; leaves of zero
    must be zero in both.
    """
    assert set(found) == set(expected), (set(found), set(expected))
    worst = 0.0
    for key, want in expected.items():
        for a, b in zip(jax.tree.leaves(found[key]), jax.tree.leaves(want), strict=True):
            a, b = np.asarray(a, float), np.asarray(b, float)
            assert a.shape == b.shape, (key, a.shape, b.shape)
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)))
    return worst


def close(found, expected, tolerance=None):
    """Whether two trees of gradients are the same number, up to the rounding of the precision that
    is set.
    """
    exact = jax.config.jax_enable_x64
    return distance(found, expected) < (
        (1e-8 if exact else 1e-3) if tolerance is None else tolerance
    )


def cosine(found, expected):
    """Of the angle between two trees of gradients, over all their leaves."""
    flat = lambda tree: jnp.concatenate([jnp.ravel(v) for v in jax.tree.leaves(dict(tree))])
    a, b = flat(found), flat(expected)
    return jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def dead(gradients):
    """The parameters whose gradient is zero everywhere."""
    return [
        key
        for key, g in gradients.items()
        if all(not np.any(np.asarray(v)) for v in jax.tree.leaves(g))
    ]
