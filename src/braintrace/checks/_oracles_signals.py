"""Oracles of rules whose hidden layers learn from a signal of their own in the place of the loss:
three-factor learning, ETLP, DECOLLE.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..cell import Mask, Timed, sequence_length
from ..cell._arguments import Modulator, checked_marks, checked_modulator, checked_target
from ..core._domains import described, fraction
from ..core._errors import UsageError
from ._oracles_cell import Gradients, LayeredCell, check_function, check_layered, gradient_of, sg
from ._oracles_layered import local_program


def three_factor_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    modulator: Modulator,
    kappa: float = 0.0,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of three-factor learning: that of `sum_t sum_l <m_l^t, F_l^t>` with the inputs
    of each layer stopped, where `F <- kappa F + z`.

    The readout alone learns from the loss.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        modulator: (T, B) for each sample, or a list with a (T, B, n) for each layer.
        kappa: as `kappa_filter_decay` of the rule.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, given = jnp.ones((2, 1, 2)), {"loss_fn": lambda out: out[:, 0], "reduction": "sum"}
    >>> gradients, losses = checks.three_factor_oracle(
    ...     cell, params, carry, xs, modulator=jnp.array([[0.0], [1.0]]), **given
    ... )
    >>> gradients["w"][0, 0].item()
    1.5
    """
    check_layered(cell)
    kappa, given = fraction("kappa", kappa), checked_modulator(modulator)
    every = given if isinstance(given, tuple) else (given,) * len(cell.layers)
    lead = sequence_length(xs)
    layers = zip(cell.layers, carry, strict=False)
    shapes = [(lead, *layer.out(h).shape) for layer, h in layers]
    fits = [m.shape in (s, s[:2]) for m, s in zip(every, shapes, strict=False)]
    if not all(fits) or len(every) != len(shapes):
        raise UsageError(
            "The modulator does not fit the layers.",
            got=f"shapes {', '.join(str(m.shape) for m in every)}",
            expected=f"{shapes[0][:2]}, or a list of {', '.join(map(str, shapes))}",
        )

    def term(l: int, z: Array, h: PyTree, modulators: list[Array], weight: Array) -> Array:
        like = lambda v: v.reshape(-1, *(1,) * (z.ndim - 1)) if v.ndim < z.ndim else v
        return jnp.sum(like(modulators[l]) * like(weight) * z)

    run = local_program(cell, carry, xs, list(every), term, leak=kappa)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def etlp_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    y_target: Array,
    B_list: Any,
    events: Bool[Array, " T"] | None = None,
    voltage: tuple[float, float, Callable[[PyTree], Array]] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of ETLP: at the steps of events, that of `sum_l <c V_l [|V_l| > threshold] -
    y* B_l, z_l>` with the inputs of each layer stopped, the factors of z_l constants.

    The readout alone learns from the loss, at events too.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        y_target: (T, B, n_target).
        B_list: a matrix (n_target, n_layer) for each layer.
        events: (T,) bool; by default every step.
        voltage: None, or (c, threshold, V as a function of a layer's state).

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, given = jnp.ones((2, 1, 2)), {"loss_fn": lambda out: out[:, 0], "reduction": "sum"}
    >>> given |= {"y_target": jnp.ones((2, 1, 1)), "B_list": [jnp.ones((1, 3))]}
    >>> events = jnp.array([False, True])
    >>> gradients, losses = checks.etlp_oracle(cell, params, carry, xs, events=events, **given)
    >>> gradients["w"][0, 0].item()
    -1.5
    """
    y = _layered_target(cell, carry, xs, y_target, "B_list", B_list, targets_first=True)
    counts = None if events is None else checked_marks(events)
    if counts is not None and counts.shape != y.shape[:1]:
        got, expected = f"shape {counts.shape}", f"shape {y.shape[:1]}"
        raise UsageError("Invalid events.", got=got, expected=expected)
    c, threshold, voltage_of = voltage or (0.0, 0.0, lambda h: 0.0)

    def term(l: int, z: Array, h: PyTree, y: Array, weight: Array) -> Array:
        v = voltage_of(h)
        beyond = c * jnp.where(jnp.abs(v) > threshold, v, 0.0) * jnp.ones_like(z)
        signal = beyond.reshape(z.shape[0], -1) - y @ B_list[l]
        return jnp.sum(sg(weight.reshape(-1, 1) * signal) * z.reshape(z.shape[0], -1))

    run = local_program(cell, carry, xs, y, term, counts=counts)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def decolle_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    y_target: Array,
    G_list: Any,
    local_loss: Callable[[Array, Array], Array],
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of DECOLLE: that of `sum_t sum_l local_loss(z_l G_l, y*)` with the inputs of
    each layer stopped.

    The readout alone learns from the loss.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        y_target: (T, B, n_target).
        G_list: a matrix (n_layer, n_target) for each layer.
        local_loss: `(r, y) -> (B,)`.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, given = jnp.ones((1, 1, 2)), {"loss_fn": lambda out: out[:, 0], "reduction": "sum"}
    >>> given |= {"y_target": jnp.ones((1, 1, 1)), "G_list": [jnp.ones((3, 1))]}
    >>> squares = lambda r, y: ((r - y) ** 2).mean(-1)
    >>> gradients, losses = checks.decolle_oracle(
    ...     cell, params, carry, xs, local_loss=squares, **given
    ... )
    >>> gradients["w"][0, 0].item()  # 2 (6 - 1)
    10.0
    """
    check_function("local_loss", local_loss)
    y = _layered_target(cell, carry, xs, y_target, "G_list", G_list, targets_first=False)

    def term(l: int, z: Array, h: PyTree, y: Array, weight: Array) -> Array:
        return jnp.sum(weight * local_loss(z.reshape(z.shape[0], -1) @ G_list[l], y))

    run = local_program(cell, carry, xs, y, term)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def _layered_target(
    cell: LayeredCell,
    carry: PyTree,
    xs: Timed,
    y_target: Array,
    name: str,
    matrices: Any,
    *,
    targets_first: bool,
) -> Array:
    """The target, which with a matrix for each layer fits the cell."""
    check_layered(cell)
    y, steps = checked_target(y_target), sequence_length(xs)
    if not isinstance(matrices, list | tuple) or len(matrices) != len(cell.layers):
        expected = f"{len(cell.layers)} matrices, one for each layer"
        raise UsageError(f"Invalid {name}.", got=described(matrices), expected=expected)
    for layer, h, matrix in zip(cell.layers, carry, matrices, strict=False):
        z = layer.out(h)
        sizes = (y.shape[-1:], (z[0].size,))
        wanted = (*sizes[0], *sizes[1]) if targets_first else (*sizes[1], *sizes[0])
        if y.shape[:-1] != (steps, z.shape[0]) or jnp.shape(matrix) != wanted:
            raise UsageError(
                "The y_target and the matrices do not fit.",
                got=f"shape {y.shape}, a matrix of shape {jnp.shape(matrix)}",
                expected=f"y_target ({steps}, {z.shape[0]}, n_target), a matrix of shape {wanted}",
            )
    return y
