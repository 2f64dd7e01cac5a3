"""Oracles in two lanes: D-RTRL, e-prop, RFLO, OSTL with and without recurrence, OSTTP.

Each step is evaluated twice from one carried state. The carried lane gives the next state; what
comes from the layer below is stopped in it. The live lane gives the activity that the layers above,
the readout and the loss see at this step only. So credit goes through time inside a layer, then up
through the layers at the time of the loss, and never up and then through time. `cut` says what
happens to a layer's own old activity on its way through the recurrent weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed, sequence_length
from ..cell._arguments import checked_target
from ..core._domains import described, flag, fraction
from ..core._errors import UsageError
from ._oracles_cell import Gradients, LayeredCell, check_layered, gradient_of, replaced, sg

Feedback = Callable[[jax.Array], Any]


def layered_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    recurrent: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of D-RTRL and of OSTL without recurrence; with `recurrent`, that of OSTL with
    recurrence.

    Reverse mode through the two lanes, with the recurrent weights cut (D-RTRL) or live within each
    layer (OSTL). A leaky
    readout is a layer like the others: its memory of the layers below is cut.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        recurrent: whether the layer's own old activity stays live.

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
    >>> gradients, losses = checks.layered_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.5
    """
    check_layered(cell)
    recurrent = flag("recurrent", recurrent)
    run = _in_two_lanes(cell, carry, xs, kappa=0.0, recurrent=recurrent)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def eprop_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    kappa: float | None = None,
    feedback: Feedback | None = None,
    firing_rate: tuple[float, float] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of e-prop: recurrent weights cut, and the readout's memory live.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        kappa: None to leave the cell's own leaky readout live, which is the published program; or a
            number to read the top layer's activity through an explicit filter `F <- kappa F + z`
            instead.
        feedback: None, or a function of the step's number that gives the parameters with which the
            readout is run in the backward pass, for random and adaptive feedback.
        firing_rate: None, or (target, strength), as in `EProp`. It needs a loss with one value per
            lane.

    Returns:
        `(gradients, losses)`. RFLO is the same program with `kappa=0` and a feedback.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, loss = jnp.ones((2, 1, 2)), lambda out: out[:, 0]
    >>> gradients, losses = checks.eprop_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, kappa=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    3.0
    """
    check_layered(cell)
    kappa = None if kappa is None else fraction("kappa", kappa)
    run = _in_two_lanes(cell, carry, xs, kappa, feedback, firing_rate)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def osttp_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    y_target: jax.Array,
    B_list: Any,
    exact: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OSTTP: that of the linear surrogate `-sum_t sum_l <y*_t B_l, z_l>` with the
    inputs of each layer stopped.

    The readout alone learns from the loss.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        y_target: (T, B, n_target), zero where no target acts.
        B_list: a matrix (n_target, n_layer) for each layer.
        exact: whether the recurrence within each layer stays live (`scope='exact'`).

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
    >>> gradients, losses = checks.osttp_oracle(
    ...     cell,
    ...     params,
    ...     carry,
    ...     xs,
    ...     loss_fn=loss,
    ...     y_target=jnp.ones((2, 1, 1)),
    ...     B_list=[jnp.ones((1, 3))],
    ...     reduction="sum",
    ... )
    >>> gradients["w"][0, 0].item()
    -2.5
    """
    check_layered(cell)
    exact, y_target = flag("exact", exact), checked_target(y_target)
    if not isinstance(B_list, list | tuple) or len(B_list) != len(cell.layers):
        expected = f"{len(cell.layers)} matrices, one for each layer"
        raise UsageError("Invalid B_list.", got=described(B_list), expected=expected)
    for layer, h, B in zip(cell.layers, carry, B_list, strict=False):
        n, z = jnp.shape(B), layer.out(h)
        lead = sequence_length(xs), jnp.size(z) // (n[1] if len(n) == 2 else 1)
        if len(n) != 2 or y_target.shape != (*lead, n[0]):
            raise UsageError(
                "The y_target and the matrices do not fit.",
                got=f"shape {y_target.shape}, a matrix of shape {n}",
                expected="y_target (T, B, n_target), a matrix (n_target, n_layer)",
            )

    def term(l: int, z: jax.Array, h: PyTree, y: jax.Array, weight: jax.Array) -> jax.Array:
        return -jnp.vdot(((y * weight.reshape(-1, 1)) @ B_list[l]).reshape(z.shape), z)

    run = local_program(cell, carry, xs, y_target, term, exact=exact)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def local_program(
    cell: LayeredCell,
    carry: PyTree,
    xs: Timed,
    given: Timed,
    term: Callable[[int, jax.Array, PyTree, PyTree, jax.Array], jax.Array],
    *,
    exact: bool = False,
    leak: float = 0.0,
    counts: jax.Array | None = None,
) -> Callable[[PyTree, jax.Array], tuple[PyTree, PyTree]]:
    """The program of rules whose hidden layers learn from no loss: the readout reads constants, and
    to the loss comes the sum of `term(number of the layer, z, h, given_t, weight_t)`. z is the
    leaky sum of the activity, with `leak`. At steps that do not count there is no gradient.
    """

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        def one(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            carry, sums = state
            x, given, weight, count = at
            kept, live = _lanes(cell, params, carry, x, exact)
            zs = [layer.out(h) for layer, h in zip(cell.layers, kept, strict=True)]
            sums = [leak * s + z for s, z in zip(sums, zs, strict=True)]
            every = zip(sums, kept, strict=True)
            surrogate = sum(term(l, z, h, given, weight) for l, (z, h) in enumerate(every))
            out = cell.readout(params, sg(live[-1]))
            if cell.leak is not None:
                out = cell.leak * carry[-1] + out
                kept.append(out)
            out = jnp.where(count, out, sg(out))
            return (tuple(kept), sums), (out, jnp.where(count, surrogate, 0))

        rest = [jnp.zeros_like(layer.out(h)) for layer, h in zip(cell.layers, carry, strict=False)]
        every = jnp.ones(weights.shape[0], bool) if counts is None else counts
        outs, surrogates = jax.lax.scan(one, (carry, rest), (xs, given, weights, every))[1]
        return outs, jnp.sum(surrogates)

    return run


def _in_two_lanes(
    cell: LayeredCell,
    carry: PyTree,
    xs: Timed,
    kappa: float | None,
    feedback: Feedback | None = None,
    firing_rate: tuple[float, float] | None = None,
    recurrent: bool = False,
) -> Callable[[PyTree, jax.Array], tuple[PyTree, PyTree]]:
    """The program of D-RTRL, OSTL and e-prop, which differ in what the readout reads. Without a
    filter (kappa=0) it reads the live activity, and a memory of its own is cut from the layers
    below.

    The term of the firing rate is `strength sum_j (f_j - target) z_j`, f the mean of lanes and of
    the steps so far, weighed lane by lane.
    """
    steps = jnp.arange(jax.tree.leaves(xs)[0].shape[0])
    target, strength = firing_rate or (0.0, 0.0)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        def one(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            carry, smooth, means = state
            x, step, weight = at
            kept, live = _lanes(cell, params, carry, x, recurrent)
            seen = live[-1]
            remembered = top = cell.layers[-1].out(kept[-1])
            if kappa is not None:
                seen, remembered = replaced(seen, kappa * smooth + seen), sg(seen)
                smooth = kappa * smooth + top
            read = cell.readout if feedback is None else _reading(cell.readout, feedback(step))
            out = read(params, seen)
            if cell.leak is not None:
                old = cell.leak * carry[-1]
                kept.append(old + read(params, remembered))
                out = old + out
            rate = jnp.zeros(())
            if firing_rate is not None:
                means = [m + (sg(z) - m) / (step + 1) for m, z in zip(means, live, strict=True)]
                for z, mean in zip(live, means, strict=True):
                    excess = strength * (mean.mean(0, keepdims=True) - target)
                    rate += jnp.sum(excess * z * weight.reshape(-1, *[1] * (z.ndim - 1)))
            return (tuple(kept), smooth, means), (out, rate)

        rest = [jnp.zeros_like(layer.out(h)) for layer, h in zip(cell.layers, carry, strict=False)]
        outs, rates = jax.lax.scan(one, (carry, rest[-1], rest), (xs, steps, weights))[1]
        return outs, jnp.sum(rates)

    return run


def _lanes(
    cell: LayeredCell, params: PyTree, carry: PyTree, x: PyTree, recurrent: bool
) -> tuple[list[jax.Array], list[jax.Array]]:
    """(new states of the carried lane, live activities), layer by layer."""
    kept, live = [], [x]
    for layer, h in zip(cell.layers, carry, strict=False):
        own = layer.out(h) if recurrent else sg(layer.out(h))
        kept.append(layer.move(params, h, layer.drive(params, sg(live[-1]), own, 1.0)))
        live.append(layer.out(layer.move(params, h, layer.drive(params, live[-1], own, 1.0))))
    return kept, live[1:]


def kept_lane(cell: LayeredCell, params: PyTree, carry: PyTree, x: PyTree) -> PyTree:
    """The new carry of D-RTRL's carried lane, a leaky readout's included."""
    kept, live = _lanes(cell, params, carry, x, False)
    if cell.leak is not None:
        kept.append(cell.leak * carry[-1] + cell.readout(params, sg(live[-1])))
    return tuple(kept)


def _reading(readout: Callable[..., PyTree], feedback: PyTree) -> Callable[..., PyTree]:
    """The readout, whose backward pass reaches the activity through the parameters `feedback`."""

    def read(params: PyTree, z: PyTree) -> PyTree:
        back = readout(sg(feedback), z)
        return readout(params, sg(z)) + (back - sg(back))

    return read
