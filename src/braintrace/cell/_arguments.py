"""What every sequence driver asks of its arguments."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree, Real, Shaped

from ..core._domains import array, choice, leaf, on_host, whole
from ..core._errors import UsageError

#: A tree of arrays with time on axis 0.
Timed = PyTree[Shaped[ArrayLike, "T ..."]]
#: Weights of the losses of a sequence: one for each step, or one for each sample at each step.
Mask = Real[ArrayLike, "T"] | Real[ArrayLike, "T B"] | Bool[ArrayLike, "T"] | Bool[ArrayLike, "T B"]
#: A third factor: for all hidden groups, or a list or tuple with one for each.
Modulator = Real[ArrayLike, "..."] | Sequence[Real[ArrayLike, "..."]]
#: Marks of the samples that are reset before a step.
Reset = Bool[ArrayLike, "T B"] | Int[ArrayLike, "T B"]


def sequence_length(xs: Timed, what: str = "sequence") -> int:
    """The size of axis 0 that the arrays of a sequence share."""
    paths = jax.tree_util.tree_leaves_with_path(xs)
    name = lambda path: f"{what}{jax.tree_util.keystr(path)}"
    shapes = [leaf(name(path), v).shape for path, v in paths]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise UsageError(
            "The sequence has no common time axis.",
            got=f"shapes {shapes}" if shapes else "no array",
            expected="arrays with time on axis 0, of one length and at least one step",
        )
    return sizes.pop()[0]


def check_driver(steps: int, targets: Sequence[Timed], reduction: str, window: int | None) -> None:
    """What every sequence driver asks of its arguments."""
    choice("reduction", reduction, ("mean", "sum"))
    checked_window(window)
    for target in targets:
        if (length := sequence_length(target, "target")) != steps:
            raise UsageError(
                "The sequences have different lengths.",
                got=f"{steps} inputs and {length} targets",
                expected="one target for each step",
                do="put time on axis 0 of every sequence",
            )


def checked_window(window: int | None) -> int | None:
    """A number of steps, or None."""
    if window is None:
        return None
    return whole("window", window, "a whole number of steps, at least 1, or None")


def checked_mask(mask: Mask, reduction: str) -> Real[Array, "..."]:
    """`mask` as an array of finite weights. A mean divides by their sum, so that its weights are
    at least 0; in a sum they may be below, as the advantages of a policy gradient are.
    """
    found = array("mask", mask, real=True)
    if (values := on_host(mask, found)) is not None:
        bad = ~np.isfinite(values) | ((values < 0) & (reduction == "mean"))
        if bad.any():
            place = tuple(int(k) for k in np.argwhere(bad)[0])
            raise UsageError(
                "The mask is not one of weights.",
                got=f"{values[place]} at {place}",
                expected="finite weights" + ", at least 0" * (reduction == "mean"),
                do="give what does not count the weight 0"
                + "; for weights below 0 pass reduction='sum'" * (reduction == "mean"),
            )
    return found


def checked_marks(reset: Reset) -> Bool[Array, "..."]:
    """`reset` as booleans; whole numbers stand for them where they are 0 and 1."""
    found = array("reset", reset)
    values = on_host(reset, found)
    if not any(jnp.issubdtype(found.dtype, kind) for kind in (jnp.bool_, jnp.integer)):
        got = f"dtype {found.dtype}"
    elif values is not None and ((values != 0) & (values != 1)).any():
        got = f"whole numbers from {values.min()} to {values.max()}"
    else:
        return found.astype(bool)
    raise UsageError(
        "The reset is not boolean.",
        got=got,
        expected="booleans, or the whole numbers 0 and 1",
        do="pass a comparison, such as reset > 0",
    )


def checked_target(y_target: Real[ArrayLike, "..."]) -> Real[Array, "..."]:
    """A target to project, real and finite."""
    return _real_and_finite("y_target", y_target, "targets", "a target")


def checked_modulator(modulator: Modulator) -> Real[Array, "..."] | tuple[Real[Array, "..."], ...]:
    """A modulator, or a tuple of one for each hidden group, real and finite."""
    finite = lambda name, value: _real_and_finite(name, value, "modulators", "a modulator")
    if isinstance(modulator, list | tuple):
        return tuple(finite(f"modulator[{k}]", value) for k, value in enumerate(modulator))
    return finite("modulator", modulator)


def _real_and_finite(
    name: str, value: Real[ArrayLike, "..."], several: str, one: str
) -> Real[Array, "..."]:
    found = array(name, value, real=True)
    values = on_host(value, found)
    if values is not None and not (finite := np.isfinite(values)).all():
        place = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise UsageError(
            f"The {name} is not finite.",
            got=f"{values[place]} at {place}",
            expected=f"finite {several}",
            do=f"{one} of zeros gives no learning signal",
        )
    return found


def check_reset(reset: Reset, steps: int, samples: int | None) -> Bool[Array, "T B"]:
    """`reset` as (T, B) booleans."""
    if samples is None:
        raise UsageError(
            "The batch that reset refers to is not known.",
            got="no batch, or axis 0 of the carry, which the cell does not keep apart",
            expected="the number of samples, or their axes",
            do="pass batch_size= or batch_axes= to compile",
        )
    reset = checked_marks(reset)
    if reset.shape != (steps, samples):
        raise UsageError(
            "The reset has a wrong shape.",
            got=f"shape {reset.shape}",
            expected=f"shape {(steps, samples)}: time, sample",
            do="mark each step and sample that starts afresh; jnp.broadcast_to repeats one mark "
            "for all samples",
        )
    return reset
