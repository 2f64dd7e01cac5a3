"""A stack of layers as an explicit cell, which the oracles of the algorithms take apart by hand.

Nothing here looks at a jaxpr: what is a weight operation, what is a neuron and what is its activity
is said by the user, so that an oracle shares neither analysis nor traces with the engine.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core._domains import described, fraction
from ..core._errors import UsageError
from ..gradients import Gradients as Gradients
from ..gradients import gradient_of as gradient_of

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer `h <- move(params, h, drive(params, below, out(h), 1))` with activity `out(h)`.

    Attributes:
        drive: `(params, below, own, one) -> y`, the weight operations: linear in the parameters,
            and linear in the three inputs together: the activity of the layer below (or x), the
            layer's own old activity, and the constant 1 that biases multiply.
        move: `(params, h, y) -> h`, position by position.
        out: `h -> z`, position by position.

    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> layer.move(None, 2.0, 1.0)
    2.0
    """

    drive: Callable[..., PyTree]
    move: Callable[..., PyTree]
    out: Callable[[PyTree], jax.Array]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_function(f"{field.name} of a Layer", getattr(self, field.name))


@dataclasses.dataclass(frozen=True)
class LayeredCell:
    """Layers in a stack under a linear readout: a cell `(params, carry, x) -> (carry, out)`.

    Attributes:
        layers: from the input up.
        readout: `(params, z) -> out`, linear.
        leak: None for `out = readout(z)`; or the leak of `y <- leak y + readout(z)`, which is then
            the output. The carry is the tuple of the layers' states, with y behind them where there
            is one.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> new, out = cell(params, carry, jnp.ones((1, 2)))
    >>> out.tolist()
    [[6.0]]
    """

    layers: tuple[Layer, ...]
    readout: Callable[[PyTree, jax.Array], jax.Array]
    leak: float | None = None

    def __post_init__(self) -> None:
        layers = self.layers
        if not isinstance(layers, tuple | list) or not layers:
            expected = "a tuple of layers, at least one"
            raise UsageError("Invalid layers.", got=described(layers), expected=expected)
        for layer in layers:
            if not isinstance(layer, Layer):
                raise UsageError("Invalid layers.", got=described(layer), expected="a Layer")
        check_function("readout of a LayeredCell", self.readout)
        if self.leak is not None:
            fraction("leak", self.leak, one=True)

    def __call__(self, params: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, jax.Array]:
        move = lambda layer, h, z: layer.move(params, h, layer.drive(params, z, layer.out(h), 1.0))
        return climbed(self, params, carry, x, move)

    @property
    def stateful(self) -> tuple[Layer, ...]:
        """The layers, and the readout as one where it has a leak."""
        if self.leak is None:
            return self.layers
        leaky = Layer(
            lambda p, z, own, one: self.readout(p, z),
            lambda p, h, y: self.leak * h + y,
            lambda h: h,
        )
        return (*self.layers, leaky)


def check_function(name: str, value: object) -> None:
    if not callable(value):
        raise UsageError(f"Invalid {name}.", got=described(value), expected="a function")


def check_layered(cell: object) -> None:
    """What the oracles of algorithms take apart is a `LayeredCell`."""
    if not isinstance(cell, LayeredCell):
        raise UsageError(
            "The oracle takes layers apart, and this cell has none.",
            got=described(cell),
            expected="a LayeredCell",
            do="say what its layers are: checks.LayeredCell((checks.Layer(...),), readout)",
        )


def climbed(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    move: Callable[[Layer, PyTree, PyTree], PyTree],
) -> tuple[PyTree, jax.Array]:
    """(the new carry, the output) of a step in which `move(layer, h, z)` gives each layer's new
    state over the activity z below it.
    """
    new, z = [], x
    for layer, h in zip(cell.stateful, carry, strict=False):
        new.append(move(layer, h, z))
        z = layer.out(new[-1])
    return tuple(new), z if cell.leak is not None else cell.readout(params, z)


def nudged(
    cell: LayeredCell, params: PyTree, carry: PyTree, x: PyTree, nudges: PyTree
) -> tuple[PyTree, jax.Array, list[tuple[PyTree, PyTree]]]:
    """A step with its new states perturbed: (new carry, out, of each layer its state and what its
    drive reads).
    """
    read, rest = [], iter(nudges)

    def move(layer: Layer, h: PyTree, z: PyTree) -> PyTree:
        inputs = z, layer.out(h), jnp.ones(())
        read.append((h, inputs))
        moved = layer.move(params, h, layer.drive(params, *inputs))
        return jax.tree.map(jnp.add, moved, next(rest))

    return *climbed(cell, params, carry, x, move), read


def replaced(value: PyTree, proxy: PyTree) -> PyTree:
    """`value`, with the derivative of `proxy`."""
    return jax.tree.map(lambda v, p: sg(v) + (p - sg(p)), value, proxy)


def zeros_like(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)
