"""Oracles of the rules that leave out a part of the influence: forward mode on the whole Jacobian.

J is dense here, n x |theta| for each sample, by automatic differentiation of the step as a function
of flat vectors; which of its elements are connected is found by trying: Jacobians at random points.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from ..cell import Timed, check_driver, sequence_length, split, weigh, weights_of
from ._oracles_cell import Gradients, LayeredCell, check_layered

_POINTS = 64  # at which connections are looked for

Kept = Callable[[Array, Array], Array]


def snap_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., jax.Array],
    n: int,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of SnAp-n, on a dense influence matrix that is masked at every step:
    `(gradients, losses)`.

    A unit is a position of a layer. The mask holds the units that a parameter moves at once, and
    those that these move within n - 1 further steps, in Jacobians at random points.

    Args:
        cell: layers and their readout.
        params: the parameters.
        carry: the carry before the first step.
        xs: inputs, time on axis 0.
        *targets: further sequences, handed to `loss_fn` step by step.
        loss_fn: `loss_fn(out_t, *target_t)`: a scalar, or one value per sample (B,).
        n: steps.
        reduction: 'mean' or 'sum', as in `etrace_grad`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> gradients, losses = checks.snap_oracle(
    ...     cell, params, carry, jnp.ones((4, 1, 2)), loss_fn=lambda out: out.sum(-1), n=1
    ... )
    >>> gradients["w"].shape
    (2, 3)
    """
    flat = _Flat(cell, params, carry, xs)
    by_state, by_params = flat.connections()
    reached = by_params
    for _ in range(n - 1):
        reached = reached | (by_state @ reached)
    mask = jnp.asarray(reached[flat.units])
    keep = lambda d, j: jnp.where(mask, d @ j, 0)
    return flat.gradient(keep, xs, targets, loss_fn, reduction)


def random_rtrl_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., jax.Array],
    kept: Bool[np.ndarray, "U U"],
    reduction: str = "mean",
) -> Gradients:
    """The gradient of random-sparse RTRL, on a dense influence matrix: `(gradients, losses)`.

    Args:
        cell: layers and their readout.
        params: the parameters.
        carry: the carry before the first step.
        xs: inputs, time on axis 0.
        *targets: further sequences, handed to `loss_fn` step by step.
        loss_fn: `loss_fn(out_t, *target_t)`: a scalar, or one value per sample (B,).
        kept: which units (positions of layers, from the input up) move which: M.
        reduction: 'mean' or 'sum', as in `etrace_grad`.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> gradients, losses = checks.random_rtrl_oracle(
    ...     cell,
    ...     params,
    ...     carry,
    ...     jnp.ones((4, 1, 2)),
    ...     loss_fn=lambda out: out.sum(-1),
    ...     kept=np.eye(3, dtype=bool),
    ... )
    >>> gradients["w"].shape
    (2, 3)
    """
    flat = _Flat(cell, params, carry, xs)
    units = flat.units
    mask = jnp.asarray(np.asarray(kept)[units[:, None], units])
    return flat.gradient(lambda d, j: (d * mask) @ j, xs, targets, loss_fn, reduction)


class _Flat:
    """A cell as functions of flat vectors, of one sample."""

    def __init__(self, cell: LayeredCell, params: PyTree, carry: PyTree, xs: Timed):
        check_layered(cell)
        self.cell = cell
        self.theta, self.of_theta = ravel_pytree(params)
        self.samples = jax.tree.leaves(carry)[0].shape[0]
        one = jax.tree.map(lambda v: v[0], carry)
        self.state, self.of_state = ravel_pytree(one)
        self.carry = jax.vmap(lambda h: ravel_pytree(h)[0])(carry)
        self.x = jax.tree.map(lambda v: v[0, 0], xs)
        self.units = _units(one)

    def step(self, h: Array, theta: Array, x: PyTree) -> Array:
        first = lambda tree: jax.tree.map(lambda v: v[None], tree)
        new, _ = self.cell(self.of_theta(theta), first(self.of_state(h)), first(x))
        return ravel_pytree(jax.tree.map(lambda v: v[0], new))[0]

    def read(self, h: Array, theta: Array) -> Array:
        states = jax.tree.map(lambda v: v[None], self.of_state(h))
        top = states[len(self.cell.stateful) - 1]
        z = self.cell.stateful[-1].out(top)
        out = z if self.cell.leak is not None else self.cell.readout(self.of_theta(theta), z)
        return out[0]

    def connections(self) -> tuple[Bool[np.ndarray, "U U"], Bool[np.ndarray, "U P"]]:
        """Which units move which, and which parameters move which units."""
        draw, count = np.random.default_rng(0), self.units.max() + 1
        of_units = np.zeros((count, len(self.units)), bool)
        of_units[self.units, np.arange(len(self.units))] = True
        random = lambda v: jnp.asarray(draw.normal(size=(_POINTS, *v.shape)), v.dtype)
        with jax.ensure_compile_time_eval():
            points = random(self.state), random(self.theta), jax.tree.map(random, self.x)
            found = jax.vmap(jax.jacrev(self.step, (0, 1)))(*points)
            by_state, by_params = (np.asarray(v != 0).any(0) for v in found)
        return of_units @ by_state @ of_units.T, of_units @ by_params

    def gradient(
        self,
        keep: Kept,
        xs: Timed,
        targets: tuple[Timed, ...],
        loss_fn: Callable[..., jax.Array],
        reduction: str,
    ) -> Gradients:
        """With `keep(D, J)` in the place of D J."""
        steps = sequence_length(xs)
        check_driver(steps, targets, reduction, None)
        theta = self.theta

        def one(h: Array, j: Array, x: PyTree) -> tuple[Array, Array, Array, Array]:
            d, i = jax.jacrev(self.step, (0, 1))(h, theta, x)
            h, j = self.step(h, theta, x), keep(d, j) + i
            by_state, direct = jax.jacrev(self.read, (0, 1))(h, theta)
            return h, j, self.read(h, theta), jnp.tensordot(by_state, j, 1) + direct

        def advance(state: tuple[Array, Array], x: PyTree) -> tuple[tuple[Array, Array], PyTree]:
            h, j, out, influence = jax.vmap(one)(*state, x)
            return (h, j), (out, influence)

        none = jnp.zeros((self.samples, self.state.size, theta.size), theta.dtype)
        _, (outs, influence) = jax.lax.scan(advance, (self.carry, none), xs)
        losses_of = jax.vmap(lambda out, target: split(loss_fn(out, *target), False, "loss_fn")[0])
        losses = losses_of(outs, targets)
        like = jax.ShapeDtypeStruct(losses.shape[1:], losses.dtype)
        weights = weights_of(None, like, steps, reduction)
        by_out = jax.grad(lambda outs: weigh(losses_of(outs, targets), weights))(outs)
        return self.of_theta(jnp.tensordot(by_out, influence, by_out.ndim)), losses


def _units(carry: tuple[PyTree, ...]) -> np.ndarray:
    """A number for each position of each layer: what its states share."""
    count, found = 0, list[np.ndarray]()
    for layer in carry:
        sizes = [v.size for v in jax.tree.leaves(layer)]
        found += [count + np.arange(size) for size in sizes]
        count += max(sizes)
    return np.concatenate(found)
