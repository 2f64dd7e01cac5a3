"""The oracles of sums of Kronecker products, KF-RTRL and OK.

The drive y of a layer is linear in what it reads: y = a M, with a the activity below, the layer's
own and 1 side by side, and M a matrix made of the parameters. The influence of M is kept as the
algorithm keeps it, with Jacobians of the whole step by plain autodiff; that of parameters which
neurons read by themselves is exact.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..cell import Mask, Timed, sequence_length
from ..core._domains import whole
from ._oracles_cell import Gradients, Layer, LayeredCell, check_layered, gradient_of, sg
from ._oracles_random import checked, flat, jacobians, plus, scales, times


def kf_rtrl_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    signs: Float[Array, "T B k"],
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of KF-RTRL with given signs.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        signs: 1 or -1, two for each step, sample and drive of a layer with more than one input:
            `drawn_signs(key, T, B, 2 k)`. A drive is an array that `Layer.drive` returns.

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
    >>> signs = checks.drawn_signs(0, 2, 1, 2)
    >>> gradients, losses = checks.kf_rtrl_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, signs=signs, reduction="sum"
    ... )
    >>> round(gradients["w"][0, 0].item(), 4)
    2.5
    """
    given = params, carry, xs, targets, loss_fn, mask, reduction
    return _kronecker(cell, given, signs, None)


def ok_rtrl_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    signs: Float[Array, "T B k"],
    rank: int,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of the optimal sum of `rank` Kronecker products with given signs.

    Args:
        cell, params, carry, xs, targets, loss_fn, mask, reduction: as in `kf_rtrl_oracle`.
        signs: 1 or -1, `rank + 1` for each step, sample and drive with more than `rank` inputs.
        rank: of the sum.

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
    >>> signs = checks.drawn_signs(0, 2, 1, 2)
    >>> gradients, losses = checks.ok_rtrl_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, signs=signs, rank=1, reduction="sum"
    ... )
    >>> round(gradients["w"][0, 0].item(), 4)
    2.5
    """
    given = params, carry, xs, targets, loss_fn, mask, reduction
    return _kronecker(cell, given, signs, whole("rank", rank))


def _kronecker(cell: LayeredCell, given: Any, signs: Any, rank: int | None) -> Gradients:
    """With `rank` None a plain mixture of two terms."""
    check_layered(cell)
    params, carry, xs, targets, loss_fn, mask, reduction = given
    terms, rows = rank or 1, _rows(cell, params, carry, xs)
    drawing = [k for k, of_drive in enumerate(rows) if of_drive.sum() > terms]
    samples, n = flat(carry).shape
    signs = checked(signs, sequence_length(xs), samples, (terms + 1) * len(drawing))

    def run(params: PyTree, _: Array) -> tuple[PyTree, PyTree]:
        every = _matrices(cell, params, carry, xs)
        matrices = [m[of] for m, of in zip(every, rows, strict=True)]
        fixed, nothing = sg((matrices, params)), [jnp.zeros(m.shape[1]) for m in matrices]

        def perturbed(weights: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            own, perturbation = weights
            return _step(cell, rows, (fixed[0], own), carry, x, perturbation)[:2]

        def one(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            (carry, exact, kept), (x, drawn) = state, at
            change = jnp.zeros((samples, n))
            for j, v in zip(jax.tree.leaves(exact), jax.tree.leaves(params), strict=True):
                change += (j * (v - sg(v))).reshape(samples, n, -1).sum(2)
            for k, (u, a) in enumerate(kept):
                change += jnp.einsum("bri,brnm,im->bn", u, a, matrices[k] - fixed[0][k])
            live = plus(carry, change)
            new, out, _ = _step(cell, rows, (matrices, params), live, x, nothing)
            data = sg(_step(cell, rows, fixed, carry, x, nothing)[2])
            D, (I, F) = jacobians(perturbed, (fixed[1], nothing), carry, x)
            exact = jax.tree.map(lambda j, i: jnp.einsum("bij,bj...->bi...", D, j) + i, exact, I)
            chosen = iter(jnp.split(drawn, max(len(drawing), 1), axis=1))
            kept = list(kept)
            for k, (u, a) in enumerate(kept):
                both = (
                    jnp.concatenate([u, data[k][:, None]], 1),
                    jnp.concatenate([jnp.einsum("bij,brjm->brim", D, a), F[k][:, None]], 1),
                )
                if k not in drawing:  # a term for each input
                    kept[k] = u, both[1][:, :-1] + data[k][..., None, None] * F[k][:, None]
                elif rank is None:
                    kept[k] = _mixed(*both, next(chosen))
                else:
                    kept[k] = _optimal(*both, next(chosen))
            return sg((new, exact, kept)), out

        start = carry, jax.tree.map(lambda v: jnp.zeros((samples, n, *v.shape)), params), []
        for k, m in enumerate(matrices):
            count = terms if k in drawing else m.shape[0]
            u = jnp.zeros((samples, count, m.shape[0]))
            u = u if k in drawing else u + jnp.eye(m.shape[0])
            start[2].append((u, jnp.zeros((samples, count, n, m.shape[1]))))
        return jax.lax.scan(one, start, (xs, signs))[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def _mixed(u: Array, a: Array, signs: Float[Array, "B 2"]) -> tuple[Array, Array]:
    """The two terms in one, with the norms of its sides made equal."""
    left, right = 0.0, 0.0
    for k in (0, 1):
        of_left, of_right = scales(a[:, k], u[:, k])
        left += times(signs[:, k] * of_left, u[:, k])
        right += times(signs[:, k] * of_right, a[:, k])
    return left[:, None], right[:, None]


def _optimal(u: Array, a: Array, signs: Float[Array, "B r1"]) -> tuple[Array, Array]:
    """One term less: from the singular values of the whole sum, as the paper has it."""
    terms = u.shape[1] - 1

    def of_sample(u: Array, a: Array, signs: Array) -> tuple[Array, Array]:
        whole = jnp.einsum("ri,rN->iN", u, a.reshape(terms + 1, -1))
        left, values, right = jnp.linalg.svd(whole, full_matrices=False)
        missing = max(terms + 1 - values.size, 0)
        left = jnp.pad(left, ((0, 0), (0, missing)))[:, : terms + 1]
        right = jnp.pad(right, ((0, missing), (0, 0)))[: terms + 1]
        values = jnp.pad(values, (0, missing))[: terms + 1]
        values = jnp.where(values > 16 * jnp.finfo(values.dtype).eps * values[0], values, 0)
        signs = signs * jnp.where(left.sum(0) < 0, -1, 1)
        # each place where the tail may begin, and the first that may
        tails = [(m, terms - m, values[m:].sum()) for m in range(terms)]
        mixtures = [_tail(left, values, right, signs, *of) for of in tails]
        allowed = jnp.stack([values[m] * k <= total for m, k, total in tails])
        best = jnp.stack(mixtures)[jnp.argmax(allowed)]
        # as a sum of `terms` products again
        left, values, right = jnp.linalg.svd(best, full_matrices=False)
        missing = max(terms - values.size, 0)
        factors = (left * values).T, right
        padded = [jnp.pad(v, ((0, missing), (0, 0)))[:terms] for v in factors]
        return padded[0], padded[1].reshape(terms, *a.shape[1:])

    return jax.vmap(of_sample)(u, a, signs)


def _tail(left: Array, values: Array, right: Array, signs: Array, m: int, k: int, total: Array):
    """The sum whose terms from m on are mixed by what is orthogonal to z."""
    tail = jnp.where(total > 0, total, 1)
    z = jnp.sqrt(jnp.clip(1 - values[m:] * k / tail, 0))
    orthogonal = jnp.eye(z.size) - jnp.outer(z, z) / jnp.where(total > 0, z @ z, 1)
    mixing = total / k * signs[m:, None] * orthogonal * signs[m:]
    return (left[:, :m] * values[:m]) @ right[:m] + left[:, m:] @ mixing @ right[m:]


def _step(
    cell: LayeredCell,
    rows: list[np.ndarray],
    weights: tuple[list[Array], PyTree],
    carry: PyTree,
    x: PyTree,
    perturbation: list[Array],
) -> tuple[PyTree, Array, list[Array]]:
    """(new carry, output, what each drive reads) of the cell with the matrices of its drives; the
    parameters beside them are what `move` and the readout read.
    """
    matrices, params = weights
    read, new, z, k = [], [], x, 0
    for layer, h in zip(cell.stateful, carry, strict=True):
        own = layer.out(h)
        inputs = jnp.concatenate([_matrix(z), _matrix(own), jnp.ones((own.shape[0], 1))], 1)
        like, structure = jax.tree.flatten(
            jax.eval_shape(lambda z, own, layer=layer: layer.drive(params, z, own, 1.0), z, own)
        )
        drives = []
        for shape in like:
            read.append(inputs[:, rows[k]])
            y = read[-1] @ matrices[k] + perturbation[k]
            drives.append(y.reshape(shape.shape))
            k += 1
        new.append(layer.move(params, h, structure.unflatten(drives)))
        z = layer.out(new[-1])
    return tuple(new), z if cell.leak is not None else cell.readout(params, z), read


def _matrix(values: Array) -> Float[Array, "B I"]:
    return values.reshape(values.shape[0], -1)


def _matrices(cell: LayeredCell, params: PyTree, carry: PyTree, xs: Timed) -> list[Array]:
    """M of each drive, (inputs, elements of y in one sample)."""
    found, z = [], jax.tree.map(lambda v: v[0, :1], xs)
    for layer, h in zip(cell.stateful, carry, strict=True):
        own = layer.out(jax.tree.map(lambda v: v[:1], h))
        found += _of_layer(layer, params, z, own)
        z = own
    return found


def _of_layer(layer: Layer, params: PyTree, below: Array, own: Array) -> list[Array]:
    def drive(a: Float[Array, " I"]) -> list[Array]:
        z, old, one = jnp.split(a, [below.size, below.size + own.size])
        y = layer.drive(params, z.reshape(below.shape), old.reshape(own.shape), one[0])
        return [v.reshape(-1) for v in jax.tree.leaves(y)]

    return [m.T for m in jax.jacobian(drive)(jnp.zeros(below.size + own.size + 1))]


def _rows(cell: LayeredCell, params: PyTree, carry: PyTree, xs: Timed) -> list[np.ndarray]:
    """Of each M, the rows that parameters make: what a drive does not read is no data of it."""
    drawn = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        like = lambda tree: jax.tree.map(lambda v: jnp.asarray(drawn.normal(size=v.shape)), tree)
        made = _matrices(cell, like(params), like(carry), like(xs))
        return [np.asarray((m != 0).any(1)) for m in made]
