"""The weights between the neurons of a layer, as a leaf of the carry that a carrier reads."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import CompilationError
from .._precision import wide
from ..analysis import CellGraph, Exit, Site
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Const, Var
from ..traces._taps import BETWEEN
from ._editor import Edit, Editor, sg
from ._modulation import Types, means
from ._readouts import weight_of
from ._slope import surrogate


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
        for number, (g, edge) in enumerate(_products(graph, exits).items()):
            w = _weight(graph, g, edge)
            given = w.value if isinstance(w, Const) else found[w]
            k = np.asarray(_influence(graph, g, edge, given), float)
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
        for number, (g, edge) in enumerate(products.items()):
            total = self._matrix(editor, g, edge)
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

    def _matrix(self, editor: Editor, g: int, edge: Edge) -> Var:
        """K of one product."""
        graph, (equation, k), w = editor.graph, edge, _weight(editor.graph, g, edge)
        [slot] = graph.groups[g].slots
        new, u = graph.new_carry[slot.leaf], equation.inputs[k]
        assert isinstance(u, Var) and isinstance(new, Var)
        surrogate(editor, graph.carry[slot.leaf], u)  # refuses what is not in the neurons' order
        surrogate(editor, equation.outputs[0], new)
        return editor.apply(lambda w: _influence(graph, g, edge, sg(w)), w)


def _weight(graph: CellGraph, g: int, edge: Edge) -> Atom:
    """The weight of a product of a layer's activity that is shaped as the layer."""
    w, (equation, k), [slot] = weight_of(graph, edge), edge, graph.groups[g].slots
    u, [y], state = equation.inputs[k], equation.outputs, graph.carry[slot.leaf]
    axis, weights = graph.batch_axis(u), graph.batch and graph.batch.aligned.get((equation, 1 - k))
    if w is None or jnp.issubdtype(u.dtype, np.complexfloating):
        got = f"a layer that feeds itself through {equation.name}"
        expected = "a product of its real activity with a weight"
    elif not u.shape == y.shape == state.shape:
        got = f"a product from {u.shape} to {y.shape} of a state of shape {state.shape}"
        expected = "one shape"
    elif weights is not None or (graph.batch is not None and (axis is None or axis.dim)):
        got = "weights for each sample" if weights else "samples that are not on axis 0"
        expected = "a batch on axis 0, and one weight for all samples"
    else:
        return w
    raise _refusal(got, expected, equation.source)


def _influence(graph: CellGraph, g: int, edge: Edge, w: Array) -> Float[Array, "n n"]:
    """What the operation makes of each neuron's activity alone."""
    (equation, k), [slot] = edge, graph.groups[g].slots
    u, size = equation.inputs[k], graph.sample_size(slot.leaf)
    lead = (1, *u.shape[1:]) if graph.batch is not None else u.shape

    def made(one: Float[Array, " n"]) -> Float[Array, " n"]:
        data = one.reshape(lead)
        return equation.bind([w, data] if k == 1 else [data, w])[0].reshape(-1)

    return jax.vmap(made)(jnp.eye(size, dtype=u.dtype))


def _products(graph: CellGraph, exits: Sequence[Exit]) -> dict[int, Edge]:
    """The product of a group's old activity that feeds the group itself."""
    for group in graph.groups:
        if len(group.slots) > 1 or not all(s.in_order for s in group.slots):
            names = ", ".join(graph.leaf_paths[k] for k in group.leaves)
            raise _refusal(f"{len(group.slots)} states of a neuron in {names}", "one state each")
    found: dict[int, Edge] = {}
    for x in exits:
        if x.edge not in graph.mixing or x.variable in graph.after:
            continue
        if x.feeds != {x.group}:
            raise _refusal(
                "a layer that is fed by the old activity of another one",
                "layers that feed themselves",
                x.edge[0].source,
            )
        if found.setdefault(x.group, x.edge) != x.edge:
            raise _refusal(
                "several recurrent products of one layer", "one for each layer", x.edge[0].source
            )
    for e, k in graph.mixing.difference(found.values()):
        if e.inputs[k] in graph.old and e.inputs[k] not in graph.after:
            expected = "a product of its activity with a weight"
            raise _refusal(f"a layer that feeds itself through {e.name}", expected, e.source)
    return found


def _refusal(got: str, expected: str, at: str = "") -> CompilationError:
    return CompilationError(
        "The influence of past steps is not that of one matrix for each layer.",
        got=got,
        expected=expected,
        do="use 'mdgl' or 'd_rtrl'",
        at=at,
    )
