"""Oracles of the rules that filter what a weight reads: ES-D-RTRL (pp_prop), OTTT, OTPE, F-OTPE.

That of ES-D-RTRL is an explicit replay, for each step of the loss, with a constant drive. The
others replace derivatives: `value + (proxy - stop_gradient(proxy))` has the value of one program
and the derivative of another.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed, split
from ..core._domains import flag, fraction
from ..core._errors import UsageError
from ._oracles_cell import (
    Gradients,
    Layer,
    LayeredCell,
    check_layered,
    climbed,
    gradient_of,
    nudged,
    replaced,
    sg,
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
    check_layered(cell)
    if not isinstance(decays, tuple | list) or len(decays) != 2:
        expected = "a pair of numbers in [0, 1)"
        raise UsageError("Invalid decays.", got=repr(decays), expected=expected)
    a_x, a_f = (fraction("decays", decay) for decay in decays)
    layers = cell.stateful

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        still, fixed = zeros_like(tuple(carry)), sg(params)

        def forward(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces = state
            x, target, weight = at
            new, out, read = nudged(cell, fixed, carry, x, still)
            traces = [filtered(e, v, a_x, True) for e, (_, v) in zip(traces, read, strict=True)]
            loss_of = lambda out: split(loss_fn(out, *target), False, "loss_fn")[0]
            loss = lambda n: jnp.sum(weight * loss_of(nudged(cell, fixed, carry, x, n)[1]))
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


def ottt_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    leak: float,
    bias_trace: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OTTT, as its published code computes it: old states are constants, and each
    weight operation is run once on the filtered inputs for its weights and once on the inputs as
    they are for the layers below.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        leak: of the presynaptic traces.
        bias_trace: whether the constant 1 is filtered too.

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
    >>> gradients, losses = checks.ottt_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, leak=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.5
    """
    check_layered(cell)
    leak, bias_trace = fraction("leak", leak, one=True), flag("bias_trace", bias_trace)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces = sg(state)
            kept, old = [], iter(traces)

            def move(layer: Layer, h: PyTree, z: PyTree) -> PyTree:
                own = layer.out(h)
                kept.append(filtered(next(old), (z, own, jnp.ones(())), leak, bias_trace))
                of_weights = layer.drive(params, *kept[-1])
                of_inputs = layer.drive(fixed, z, own, 1.0)
                value = layer.drive(params, z, own, 1.0)
                y = replaced(value, jax.tree.map(jnp.add, of_weights, of_inputs))
                return layer.move(params, h, y)

            new, out = climbed(cell, params, carry, x, move)
            return (new, kept), out

        start = (carry, traces_of(cell.stateful, carry, xs))
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def otpe_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    leak: float,
    approximate: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OTPE, or with `approximate` of F-OTPE, by a proxy of each layer's activity.

    What the layer above and the readout differentiate is, with R the leaky sum of the activity and
    g the leaky mean of dz/dy,

        z + (R - sg R)                                               the own weights (OTPE), or
          sg(g) (drive(params, twice filtered inputs) - sg)          the own weights (F-OTPE)
          + sg(g) (drive(sg params, proxy of the layer below) - sg)

    Args:
        cell: a `LayeredCell` of layers whose y has the shape of z; params, carry, xs, targets,
            loss_fn, mask and reduction as in `etrace_grad`.
        leak: of the membranes.
        approximate: whether it is F-OTPE.

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
    >>> gradients, losses = checks.otpe_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, leak=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    3.0
    """
    check_layered(cell)
    leak, approximate = fraction("leak", leak, one=True), flag("approximate", approximate)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, states, top, count = state
            new, kept, z, proxy = [], [], x, x
            for layer, h, at in zip(cell.layers, carry, states, strict=False):
                total, mean, once, twice = at
                lowest = not new
                own = sg(layer.out(h))
                settled = lambda p, y, layer=layer, h=h: layer.out(layer.move(p, sg(h), y))
                y = layer.drive(params, sg(z), own, 1.0)
                new.append(layer.move(params, h, y))
                active = layer.out(new[-1])
                total = leak * total + active
                once = filtered(once, (z, own, jnp.ones(())), leak, False)
                twice = filtered(twice, once, leak, False)
                if not lowest or approximate:
                    pull = jax.vjp(partial(settled, fixed), sg(y))[1]
                    (slope,) = pull(jnp.ones_like(active))
                    mean = sg(leak * count * mean + slope) / (leak * count + 1)
                learned = total
                if approximate:  # biases and the neuron's own parameters learn from their own step
                    learned = mean * layer.drive(params, *twice[:2], 0.0)
                    biases = y - layer.drive(params, sg(z), own, 0.0)
                    learned += settled(params, replaced(y, biases))
                seen = replaced(active, learned)
                if not lowest:
                    driven = layer.drive(fixed, proxy, own, 1.0)
                    seen = seen + mean * (driven - sg(driven))
                kept.append((total, mean, once, twice))
                z, proxy = active, seen
            out, seen = cell.readout(params, sg(z)), cell.readout(fixed, proxy)
            if cell.leak is not None:
                top, out = leak * top + sg(z), cell.leak * carry[-1] + out
                if approximate:  # the readout's weights have a filtered input too
                    out = replaced(out, cell.readout(params, top))
                new.append(out)
            after = sg(tuple(new)) if approximate else tuple(new)
            return (after, kept, top, leak * count + 1), out + (seen - sg(seen))

        traces = traces_of(cell.layers, carry, xs)
        states = [(trace[1], trace[1], trace, trace) for trace in traces]
        start = carry, states, traces[-1][1], jnp.zeros(())
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def filtered(old: PyTree, inputs: PyTree, leak: float, constant: bool) -> PyTree:
    """The leaky sums of a layer's three inputs; the constant 1 stays as it is unless `constant`."""
    sums = jax.tree.map(lambda e, v: leak * e + sg(v), old, inputs)
    return sums if constant else (*sums[:2], inputs[2])


def traces_of(layers: Sequence[Layer], carry: PyTree, xs: Timed) -> list[PyTree]:
    """Zero traces of what each layer reads: the activity below, its own, and the constant 1."""
    own = [layer.out(h) for layer, h in zip(layers, carry, strict=False)]
    below = [jax.tree.map(lambda v: v[0], xs), *own]
    return [zeros_like((z, v, jnp.ones(()))) for z, v in zip(below, own, strict=False)]
