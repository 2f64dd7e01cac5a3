"""Products with a weight on either side: dense, batched, grouped, einsum, shared over positions."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from .._compat import P
from ..jaxpr import Equation
from ._rule import SiteRule, register_site_rule


class DotGeneralRule(SiteRule):
    """Letters: b batch, x free axes of the data, o free axes of the weight, i contraction. y is
    b+x+o or b+o+x.

    The trace is laid out as y and the contraction or, where y has one axis of samples at most, in
    front, as samples and W.
    """

    def __init__(self, equation: Equation, operand: int):
        super().__init__(equation, operand)
        (contract, batch) = equation.params["dimension_numbers"]
        weight, data = equation.inputs[operand].shape, equation.inputs[1 - operand].shape
        letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW")
        of_weight, of_data = dict[int, str](), dict[int, str]()
        for names in (batch, contract):
            for w, d in zip(names[operand], names[1 - operand], strict=True):
                of_weight[w] = of_data[d] = next(letters)
        joint = "".join(of_weight.values())
        batches, self._c = joint[: len(batch[0])], joint[len(batch[0]) :]
        free = []
        for shape, known in ((weight, of_weight), (data, of_data)):
            own = {k: next(letters) for k in range(len(shape)) if k not in known}
            known |= own
            free.append("".join(own.values()))
        self._weight = "".join(of_weight[k] for k in range(len(weight)))
        self._data = "".join(of_data[k] for k in range(len(data)))
        self._y = batches + "".join(free if operand == 0 else free[::-1])
        self._sizes = tuple(weight[w] for w in contract[operand])
        self._dtype = equation.inputs[operand].dtype
        self._shape = tuple(weight)
        self._precision = equation.params.get("precision")

        samples = "".join(letter for letter in self._y if letter not in self._weight)
        outputs = self._y[len(samples) :]
        layouts = {outputs + self._c: "oi", self._c + outputs: "io"}
        simple = (
            len(samples) <= 1
            and self._y.startswith(samples)
            and set(self._data) == {*samples, *self._c}
        )
        self._layout = layouts.get(self._weight) if simple else None
        self._entries = samples + self._weight if self._layout else self._y + self._c

    @property
    def trace_shape(self) -> tuple[int, ...]:
        sizes = dict(zip(self._weight + self._y, self._shape + self._y_shape, strict=True))
        return tuple(sizes[letter] for letter in self._entries)

    def at_entries(self, values: jax.Array) -> jax.Array:
        return _aligned(self._y, self._entries, values)

    def contraction(self) -> tuple[int, ...]:
        return self._sizes

    def lane_axis(self, axis: int) -> int | None:
        place = self._data.find(self._y[axis])
        return place if place >= 0 else None

    def entry_axis(self, axis: int) -> int | None:
        return self._entries.index(self._y[axis])

    def neurons(self) -> list[tuple[int, int | None]]:
        columns = [n for n, letter in enumerate(self._y) if letter in self._weight]
        return [(n, self._weight.index(self._y[n])) for n in columns]

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        x = data[0].astype(f.dtype) if not np.iscomplexobj(f) else data[0]
        # one broadcast multiplication, which fuses with what follows
        return self.at_entries(f) * _aligned(self._data, self._entries, x)

    def spread_sum(self, f: Num[Array, "T ..."], data: list[jax.Array]) -> jax.Array:
        names = f"X{self._y},X{self._data}->{self._entries}"
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum(names, f, data[0].astype(f.dtype), precision=exact)

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        # One product of two matrices as they lie: the transpose of the mapped operation would copy
        # the larger one first.
        names = f"X{self._data},X{self._y}->{self._weight}"
        return jnp.einsum(names, x.astype(c.dtype), c, precision=self._precision)

    def data_gradient_sum(
        self, data: list[jax.Array], c: Num[Array, "T ..."], weight: jax.Array
    ) -> jax.Array:
        return self.weight_gradient_sum(data[0], c)

    @property
    def outer_layout(self) -> str | None:
        return self._layout

    def outer(self, data: list[jax.Array]) -> Num[Array, "... B I"]:
        samples = self._entries[: len(self._entries) - len(self._weight)]
        moved = jnp.einsum(f"...{self._data}->...{samples}{self._c}", data[0])
        lead = data[0].ndim - len(self._data)
        return moved.reshape(*moved.shape[:lead], -1, int(np.prod(self._sizes)))

    def collect(self, entries: jax.Array) -> jax.Array:
        return jnp.einsum(f"{self._entries}->{self._weight}", entries)

    def collect_by_y(self, entries: jax.Array) -> jax.Array:
        """`collect` of entries laid out as y and the contraction."""
        return jnp.einsum(f"{self._y}{self._c}->{self._weight}", entries)


def _aligned(letters: str, out: str, value: jax.Array) -> jax.Array:
    """`value`, with an axis for each of `letters`, so that it broadcasts against an array with one
    for each of `out`.
    """
    order = [k for letter in out if (k := letters.find(letter)) >= 0]
    shape = [value.shape[letters.index(letter)] if letter in letters else 1 for letter in out]
    return jnp.transpose(value, order).reshape(shape)


register_site_rule(P.dot_general_p, DotGeneralRule)
