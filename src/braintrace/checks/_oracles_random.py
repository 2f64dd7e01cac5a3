"""The oracle of UORO, and what those of the other rules that draw share.

It is a loop over the steps with Jacobians of the whole step by plain autodiff, sample by sample.
The estimate of the influence enters as what it stands for: the state before a step is a constant
plus the influence times the change of the parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..cell import CellFunction, Mask, Timed, sequence_length
from ..core._domains import array, described, on_host, whole
from ..core._errors import UsageError
from ..core.traces import Draws, key_words
from ._oracles_cell import Gradients, gradient_of, sg

_EPSILON = 1e-7


def drawn_signs(key: Any, steps: int, samples: int, size: int) -> Float[Array, "T B size"]:
    """The signs that a learner draws with `key`, `size` of them for each step and sample.

    Args:
        key: as in `learner.init`.
        steps: T.
        samples: B.
        size: the number of signs: that of the state elements of a sample for UORO; for a sum of
            Kronecker products see there.

    >>> from braintrace import checks
    >>> signs = checks.drawn_signs(0, 4, 2, 3)
    >>> signs.shape, bool((abs(signs) == 1).all())
    ((4, 2, 3), True)
    """
    steps, samples, size = (
        whole(name, v) for name, v in (("steps", steps), ("samples", samples), ("size", size))
    )
    words = jnp.asarray(key_words("key", key))
    at = lambda t: Draws(words, jnp.full(samples, t, jnp.int32)).signs(size, jnp.result_type(float))
    return jnp.stack([at(t) for t in range(steps)])


def uoro_oracle(
    cell: CellFunction,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    signs: Float[Array, "T B n"],
    weights: Callable[[PyTree], PyTree] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of UORO with given signs.

    Args:
        cell: `(weights, carry, x) -> (carry, out)`, a carry of floating-point arrays with the
            samples on axis 0, each of which parameters influence; params, carry, xs, targets,
            loss_fn, mask and reduction as in `etrace_grad`.
        signs: 1 or -1 for each step, sample and state element: `drawn_signs(key, T, B, n)`.
        weights: from the parameters to the values that meet data in the step, whose norms scale the
            estimate, where these are not the parameters themselves: a sigmoid of them, say.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), h)
    >>> params, h, xs = {"w": jnp.ones((2, 1))}, jnp.zeros((1, 1)), jnp.ones((2, 1, 2))
    >>> gradients, losses = checks.uoro_oracle(
    ...     cell, params, h, xs, loss_fn=lambda h: h[:, 0], reduction="sum",
    ...     signs=checks.drawn_signs(0, 2, 1, 1),
    ... )
    >>> round(gradients["w"][0, 0].item(), 4)  # exact still: with one state, after one step
    2.5
    """
    signs = checked(signs, sequence_length(xs), *flat(carry).shape)

    def run(params: PyTree, _: Array) -> tuple[PyTree, PyTree]:
        live = params if weights is None else weights(params)
        fixed, samples = sg(live), signs.shape[1]

        def one(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            (carry, s, theta), (x, nu) = state, at
            moved = jax.tree.map(lambda t, v, f: inner(t, v - f), theta, live, fixed)
            change = times(jnp.sum(jnp.stack(jax.tree.leaves(moved)), 0), s)
            new, out = cell(live, plus(carry, change), x)
            D, I = jacobians(cell, fixed, carry, x)
            pushed = jnp.einsum("bij,bj->bi", D, s)
            own = jax.tree.map(lambda i: jnp.einsum("bi,bi...->b...", nu, i), I)
            kept, added = scales(theta, pushed), scales(own, nu)
            s = times(kept[0], pushed) + times(added[0], nu)
            theta = jax.tree.map(lambda t, w: times(kept[1], t) + times(added[1], w), theta, own)
            return sg((new, s, theta)), out

        nothing = jax.tree.map(lambda v: jnp.zeros((samples, *jnp.shape(v))), fixed)
        start = carry, jnp.zeros(signs.shape[1:]), nothing
        return jax.lax.scan(one, start, (xs, signs))[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def checked(signs: Any, *shape: int) -> Float[Array, "T B n"]:
    found = array("signs", signs)
    values = on_host(signs, found)
    if found.shape != shape or not (values is None or (abs(values) == 1).all()):
        expected = f"an array of shape {shape} of 1 and -1"
        raise UsageError("Invalid signs.", got=described(signs), expected=expected)
    return found


def flat(carry: PyTree) -> Float[Array, "B n"]:
    """The state of each sample as one vector."""
    leaves = jax.tree.leaves(carry)
    return jnp.concatenate([v.reshape(v.shape[0], -1) for v in leaves], axis=1)


def plus(carry: PyTree, change: Float[Array, "B n"]) -> PyTree:
    """`carry` with a change of its `_flat` form."""
    leaves, structure = jax.tree.flatten(carry)
    ends = [sum(v[0].size for v in leaves[: k + 1]) for k in range(len(leaves))]
    parts = jnp.split(change, ends[:-1], axis=1)
    moved = [v + part.reshape(v.shape) for v, part in zip(leaves, parts, strict=True)]
    return structure.unflatten(moved)


def jacobians(
    cell: CellFunction, weights: PyTree, carry: PyTree, x: PyTree
) -> tuple[Float[Array, "B n n"], PyTree]:
    """The derivatives of the new state of each sample with respect to its old one, (B, n, n), and
    to the weights, (B, n, *shape of each).
    """
    one_sample = lambda tree: jax.tree.map(lambda v: v[None], tree)

    def of_sample(change: Array, weights: PyTree, carry: PyTree, x: PyTree) -> Array:
        new, _ = cell(weights, plus(one_sample(carry), change[None]), one_sample(x))
        return flat(new)[0]

    each = jax.vmap(jax.jacobian(of_sample, (0, 1)), in_axes=(0, None, 0, 0))
    return each(jnp.zeros_like(flat(carry)), weights, carry, x)


def inner(a: Float[Array, "B ..."], b: Float[Array, "..."]) -> Float[Array, " B"]:
    return (a * b).reshape(a.shape[0], -1).sum(1)


def norm(tree: PyTree) -> Float[Array, " B"]:
    return jnp.sqrt(sum(inner(v, v) for v in jax.tree.leaves(tree)))


def times(factors: Float[Array, " B"], values: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    return factors.reshape(-1, *[1] * (values.ndim - 1)) * values


def scales(a: PyTree, b: PyTree) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """What `b` and `a` are multiplied by, so that their norms are equal and their product stays;
    zero where it is zero.
    """
    scale = jnp.sqrt((norm(a) + _EPSILON) / (norm(b) + _EPSILON))
    scale = jnp.where((norm(a) > 0) & (norm(b) > 0), scale, jnp.nan)
    return jnp.nan_to_num(scale), jnp.nan_to_num(1 / scale)
