"""What the signal from neuron to neuron goes through in place of the derivative: MDGL's filter, and
weights averaged over types of neurons.

For a product W u with the old activity u, at the edges that the signal of a step passes:

    F <- leak F + u                                     u is read as  sg(u) + (F - sg F)
    y = W sg(u) + (M u - sg(M u))                       M: the means of W over pairs of types
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._errors import CompilationError
from ..analysis import CellGraph, Exit, joined_at
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Var
from ._editor import Edit, Editor, sg
from ._recurrence import recurrence

Types = tuple[Int[np.ndarray, " n"], ...]
_SUBJECT = "A product is not one of a layer's neurons with each other, so types say nothing of it."
_DO = "leave types out: the weights themselves are used"


@dataclasses.dataclass(frozen=True)
class Modulation(Edit):
    """`leak`: of the filter, 0 for none. `types`: for each recurrent product the type of each
    neuron, or None for the weights themselves.
    """

    replaces: ClassVar[str] = "modulatory signals stand for the derivative between neurons"

    leak: float = 0.0
    types: Types | None = dataclasses.field(default=None, compare=False)

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return {u for of_edge in _passed(graph, exits).values() for u in of_edge}

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        edges = _passed(editor.graph, exits)
        if self.types is not None and len(self.types) != len(edges):
            raise CompilationError(
                "The types do not fit the model.",
                got=f"types of {len(self.types)} recurrent products",
                expected=f"those of {len(edges)}, in the order of the program",
            )
        mixing, filtered = {x.edge for x in exits}, dict[Var, Atom]()
        for number, ((equation, k), of_edge) in enumerate(edges.items()):
            for u, found in of_edge.items() if self.leak else ():
                if u not in filtered:
                    total = editor.leaky_sum(u, self.leak, found)
                    seen = lambda u, f: sg(u) + (f - sg(f)).astype(u.dtype)
                    filtered[u] = editor.apply(seen, u, total)
            operand, read = equation.inputs[k], {u: filtered.get(u, u) for u in of_edge}
            assert isinstance(operand, Var)
            if self.types is not None:
                read |= self._by_type(editor, (equation, k), self.types[number], filtered)
            equation.inputs[k] = editor.again(operand, read, mixing)

    def _by_type(
        self, editor: Editor, edge: Edge, types: Int[np.ndarray, " n"], filtered: Mapping[Var, Atom]
    ) -> dict[Var, Atom]:
        """Let the signal pass by the means; what the product itself is to read."""
        product, [y] = recurrence(editor.graph, edge, _SUBJECT, _DO), edge[0].outputs
        if product.size != len(types):
            raise CompilationError(
                "The types do not fit a layer.",
                got=f"{len(types)} types",
                expected=f"one for each of the {product.size} neurons",
                at=edge[0].source,
            )
        between = editor.apply(lambda w: means(product.matrix(sg(w)), types), product.weight)
        through = lambda u, k: (u.reshape(-1, len(types)) @ k).reshape(y.shape).astype(y.dtype)
        hop = editor.apply(through, filtered.get(product.u, product.u), between)
        editor.replace(y, lambda y: editor.apply(lambda y, m: y + (m - sg(m)), y, hop))
        return {product.u: editor.stopped(product.u)}


def _passed(graph: CellGraph, exits: Sequence[Exit]) -> dict[Edge, dict[Var, list[Exit]]]:
    """The products that bring old activity into a state; of each the activities, with their
    exits.
    """
    read = joined_at(graph, exits)
    found: dict[Edge, dict[Var, list[Exit]]] = {}
    for x in exits:
        if x.edge in graph.mixing and read[x] not in graph.after:
            found.setdefault(x.edge, {}).setdefault(read[x], []).append(x)
    return found


def means(w: Array, types: Int[np.ndarray, " n"]) -> Array:
    """Each weight as the mean of those between neurons of the same two types; a constant."""
    member = (types[:, None] == np.unique(types)).astype(float)
    share = jnp.asarray(member @ (member / member.sum(0)).T, w.dtype)
    return sg(share @ w @ share)
