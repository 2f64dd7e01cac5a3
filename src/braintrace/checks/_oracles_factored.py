"""The oracle of ES-D-RTRL (pp_prop): an explicit replay, for each step of the loss, with a constant
drive.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ._oracles_cell import (
    Gradients,
    Layer,
    LayeredCell,
    climbed,
    filtered,
    gradient_of,
    sg,
    traces_of,
    zeros_like,
)


def pp_prop_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    decays: tuple[float, float],
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of the factored rule, in O(T^2) steps.

    For each time t, the linear recursion of the layer's state is run again from zero up to t with
    the *same* filtered inputs e_t at every step,

        k_s = a_f D_s k_{s-1} + (1 - a_f) f_s . drive(params, e_t),       e_t = a_x e_{t-1} + x_t,

    and the surrogate `<dL_t/dh_t, k_t> / (1 - a_f^(t+1))` is differentiated by the parameters. D_s
    and f_s are directional derivatives of `move`; dL_t/dh_t is found by nudging the new states of
    step t alone.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        decays: (a_x, a_f), each in [0, 1).

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, loss = jnp.ones((2, 1, 2)), lambda out: out[:, 0]
    >>> gradients, losses = checks.pp_prop_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, decays=(0.5, 0.5), reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.25
    """
    a_x, a_f = decays
    layers = cell.stateful

    def nudged(params: PyTree, carry: PyTree, x: PyTree, nudges: PyTree) -> tuple[PyTree, ...]:
        """The step with its new states perturbed: (new carry, out, what each layer reads)."""
        read, rest = [], iter(nudges)

        def move(layer: Layer, h: PyTree, z: PyTree) -> PyTree:
            inputs = (z, layer.out(h), jnp.ones(()))
            read.append((h, inputs))
            moved = layer.move(params, h, layer.drive(params, *inputs))
            return jax.tree.map(jnp.add, moved, next(rest))

        return *climbed(cell, params, carry, x, move), read

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        still, fixed = zeros_like(tuple(carry)), sg(params)

        def forward(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces = state
            x, target, weight = at
            new, out, read = nudged(fixed, carry, x, still)
            traces = [filtered(e, v, a_x, True) for e, (_, v) in zip(traces, read, strict=True)]
            loss = lambda n: jnp.sum(weight * loss_fn(nudged(fixed, carry, x, n)[1], *target))
            return (new, traces), (read, traces, jax.grad(loss)(still), out)

        start = carry, traces_of(layers, carry, xs)
        everything = xs, list(targets), weights
        _, (read, traces, signals, outs) = jax.lax.scan(forward, start, everything)
        if cell.leak is None:  # a readout without a state learns from its own step
            top = layers[-1]
            later = lambda h, inputs: top.out(top.move(fixed, h, top.drive(fixed, *inputs)))
            outs = jax.vmap(lambda *at: cell.readout(params, later(*at)))(*read[-1])
        each = zip(layers, read, traces, signals, strict=True)
        total = sum((_replays(*given, params, a_f) for given in each), start=jnp.zeros(()))
        return (outs if cell.leak is None else sg(outs)), total

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def _replays(
    layer: Layer, read: PyTree, traces: PyTree, signals: PyTree, params: PyTree, decay: float
) -> jax.Array:
    """The sum over t of `<dL_t/dh_t, k_t> / c_t`."""
    fixed, times = sg(params), jnp.arange(jax.tree.leaves(signals)[0].shape[0])

    def replay(t: jax.Array, e: PyTree, signal: PyTree) -> jax.Array:
        scale = lambda tree, c: jax.tree.map(lambda v: c * v, tree)
        drive, inner = scale(layer.drive(params, *e), 1 - decay), scale(params, (1 - decay) * e[2])

        def one(k: PyTree, at: PyTree) -> tuple[PyTree, None]:
            s, (h, inputs) = at
            y = layer.drive(fixed, *inputs)
            tangents = (inner, scale(k, decay), drive)
            moved = jax.jvp(layer.move, (fixed, h, y), tangents)[1]
            return jax.tree.map(lambda new, old: jnp.where(s <= t, new, old), moved, k), None

        k, _ = jax.lax.scan(one, zeros_like(jax.tree.map(lambda v: v[0], read[0])), (times, read))
        terms = jax.tree.map(lambda a, b: jnp.sum(a * b), signal, k)
        return sum(jax.tree.leaves(terms)) / (1 - decay ** (t + 1.0))

    return jnp.sum(jax.lax.map(lambda at: replay(*at), (times, traces, signals)))
