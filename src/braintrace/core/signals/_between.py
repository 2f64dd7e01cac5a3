"""The weights between the neurons of a layer, as a leaf of the carry that a carrier reads."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import CompilationError
from .._precision import wide
from ..analysis import CellGraph, Exit, Site, joined_at
from ..jaxpr import Const, Var
from ..traces._taps import BETWEEN
from ._editor import Edit, Editor, sg
from ._modulation import Types, means
from ._recurrence import Recurrence, old_parts, recurrence
from ._slope import surrogate

_SUBJECT = "The influence of past steps is not that of one matrix for each layer."
_DO = "use 'mdgl' or 'd_rtrl'"


@dataclasses.dataclass(frozen=True)
class Between(Edit):
    """For each group whose neurons feed each other: K[p, j], how much of the activity of p reaches
    the drive of j, as the marked leaf; with `types` its means over pairs of types. It changes no
    derivative.

    `leaks` and `slope` are those of the carrier, `Taps`: what it says of the matrix that they make.
    """

    leaks: tuple[float, ...] | None
    slope: float
    types: Types | None = dataclasses.field(default=None, compare=False)
    radii: tuple[tuple[int, float], ...] = dataclasses.field(default=(), compare=False)

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> list[Var]:
        return []

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "Between":
        if self.leaks is not None:
            return self
        groups = sorted({x.group for x in exits})
        return dataclasses.replace(
            self, leaks=tuple(leak_of(g) for g in range(max(groups, default=-1) + 1))
        )

    def measured(
        self, graph: CellGraph, exits: list[Exit], values: Callable[[], Mapping[Var, Array]]
    ) -> "Between":
        assert self.leaks is not None
        radii, found = [], values()
        for number, (g, product) in enumerate(_products(graph, exits).items()):
            w = product.weight
            given = w.value if isinstance(w, Const) else found[w]
            k = np.asarray(product.matrix(given), float)
            if self.types is not None and number < len(self.types):
                k = np.asarray(means(jnp.asarray(k), self.types[number]))
            leak = self.leaks[g if len(self.leaks) > 1 else 0]
            values_of = np.linalg.eigvals(leak * np.eye(len(k)) + self.slope * k)
            radii.append((g, float(np.abs(values_of).max(initial=0))))
        return dataclasses.replace(self, radii=tuple(radii))

    def warnings(self, site: Site) -> list[str]:
        """A signal that grows with each step back differs most from the right one."""
        groups = {place.group for place in site.places}
        return [
            f"the spectral radius of leak + mu W is {radius:.3g} with the weights as they were "
            "compiled, so signals grow with each tap; choose a smaller mu, or fewer taps"
            for g, radius in self.radii
            if g in groups and radius > 1
        ]

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        products = _products(editor.graph, exits)
        if self.types is not None and len(self.types) != len(products):
            raise CompilationError(
                "The types do not fit the model.",
                got=f"types of {len(self.types)} layers",
                expected=f"those of {len(products)}, the layers with recurrent weights",
            )
        for number, (g, product) in enumerate(products.items()):
            total = self._matrix(editor, g, product)
            if self.types is not None:
                types = self.types[number]
                if total.shape != (len(types),) * 2:
                    raise CompilationError(
                        "The types do not fit a layer.",
                        got=f"{len(types)} types",
                        expected=f"one for each of the {total.shape[0]} neurons",
                    )
                total = editor.apply(lambda k, types=types: means(k, types), total)
            zero = np.zeros(total.shape, wide(total.dtype))
            hold = lambda old, k: sg(k).astype(old.dtype)
            editor.marks[f"{BETWEEN}{g}"] = frozenset({len(editor.carry)})
            editor.add_state(f"{BETWEEN}{g}", zero, hold, total, shared=True)

    def _matrix(self, editor: Editor, g: int, product: Recurrence) -> Var:
        """K of one product."""
        graph, [y] = editor.graph, product.edge[0].outputs
        [slot] = graph.groups[g].slots
        new = graph.new_carry[slot.leaf]
        assert isinstance(new, Var)
        surrogate(editor, graph.carry[slot.leaf], product.u)  # refuses what is not in one order
        surrogate(editor, y, new)
        return editor.apply(lambda w: product.matrix(sg(w)), product.weight)


def _products(graph: CellGraph, exits: Sequence[Exit]) -> dict[int, Recurrence]:
    """The product of a group's old activity that feeds the group itself."""
    for group in graph.groups:
        if len(group.slots) > 1 or not all(s.in_order for s in group.slots):
            names = ", ".join(graph.leaf_paths[k] for k in group.leaves)
            raise _refusal(f"{len(group.slots)} states of a neuron in {names}", "one state each")
    found: dict[int, Recurrence] = {}
    read = joined_at(graph, exits)
    for x in exits:
        if x.edge not in graph.mixing or read[x] in graph.after:
            continue
        if x.feeds != {x.group}:
            raise _refusal(
                "a layer that is fed by the old activity of another one",
                "layers that feed themselves",
                x.edge[0].source,
            )
        if found.setdefault(x.group, recurrence(graph, x.edge, _SUBJECT, _DO)).edge != x.edge:
            raise _refusal(
                "several recurrent products of one layer", "one for each layer", x.edge[0].source
            )
    for e, k in graph.mixing.difference(product.edge for product in found.values()):
        if old_parts(graph, e.inputs[k])[0]:
            expected = "a product of its activity with a weight"
            raise _refusal(f"a layer that feeds itself through {e.name}", expected, e.source)
    return found


def _refusal(got: str, expected: str, at: str = "") -> CompilationError:
    return CompilationError(_SUBJECT, got=got, expected=expected, do=_DO, at=at)
