"""Oracles of rules whose hidden layers learn from a signal of their own in the place of the loss:
three-factor learning.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..cell import Mask, Timed, sequence_length
from ..cell._arguments import Modulator, checked_modulator
from ..core._domains import fraction
from ..core._errors import UsageError
from ._oracles_cell import Gradients, LayeredCell, check_layered, gradient_of
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

    def term(l: int, z: Array, modulators: list[Array], weight: Array) -> Array:
        like = lambda v: v.reshape(-1, *(1,) * (z.ndim - 1)) if v.ndim < z.ndim else v
        return jnp.sum(like(modulators[l]) * like(weight) * z)

    run = local_program(cell, carry, xs, list(every), term, leak=kappa)
    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
