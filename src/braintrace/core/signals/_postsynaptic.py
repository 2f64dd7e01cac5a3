"""OTPE's signals: filtered eligibility at a hidden layer's spikes, and an averaged surrogate on the
way down.

For a hidden layer with spikes z and drive y, leak l of the layer above:

    R  <- l R + z      (its eligibility is R-hat, the decay of the layer's influence above)
    c  <- l c + 1,   g <- (l c_old g_old + dz/dy) / c          (the leaky mean of the surrogate)
    what the layer above reads:  sg(z) + (R - sg R) + sg(g) (y' - sg y')

with y' the layer's drive recomputed from what it reads itself, at constant weights. So the layer's
own weights learn from R, and the layers below through g. In the approximate form (F-OTPE) the own
weights learn through g too, from a twice filtered input, and the layer's other parameters (biases,
time constants) from z of their own step, the drive held constant.
"""

import dataclasses
import graphlib
from typing import ClassVar

from .._errors import CompilationError
from ..analysis import Exit, ExitKind, activities
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Var
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._linear_loss import check_batch_in_front
from ._slope import surrogate


@dataclasses.dataclass(frozen=True)
class Postsynaptic(Edit):
    """`leak` of the layers' membranes; `approximate` for F-OTPE.

    >>> from braintrace import rules
    >>> rules.Postsynaptic(leak=0.9).approximate
    False
    """

    replaces: ClassVar[str] = "postsynaptic estimates stand for the layers above"

    leak: float
    approximate: bool = False

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        active = activities(editor.graph, exits)
        edges = by_edge([x for x in exits if x.group in active], *TO_OTHERS)
        mixing, sites = {x.edge for x in exits}, [s for s in editor.graph.sites if s.is_operation]
        leaves = {leaf for g in active for leaf in editor.graph.groups[g].leaves}
        editor.marks["hidden"] = frozenset(leaves)
        through: dict[Var, Atom] = {}  # what is read in place of each activity
        shadow: dict[Edge, Var] = {}  # each fed operation, repeated on that, at a constant weight
        for g in _bottom_up(list(active), edges):
            z, fed = active[g], [edge for edge, found in edges.items() if g in found[0].feeds]
            for edge in fed:
                if edge not in shadow:
                    shadow[edge] = _shadow(editor, edge, through, mixing)
            # the drives of the group that act through the mean surrogate, each as it is read
            drives = [(edge[0].outputs[0], shadow[edge]) for edge in fed]
            if self.approximate:
                own = dict.fromkeys(s.y for s in sites if g in [p.group for p in s.places])
                drives = [(y, y) for y in own] + drives
                estimate = editor.again(z, {y: editor.stopped(y) for y in own})
            else:
                here = [x for x in exits if x.group == g and x.kind in TO_OTHERS]
                estimate = editor.leaky_sum(z, self.leak, here)
            read = editor.apply(lambda z, r: sg(z) + (r - sg(r)).astype(z.dtype), z, estimate)
            for y, y_read in drives:
                slope = surrogate(editor, y, z)
                if editor.graph.batch is not None:  # the mean's weight is counted by sample
                    check_batch_in_front(editor, y)
                mean = editor.leaky_mean("mean surrogate", slope, self.leak)
                seen = lambda t, g, y: t + (sg(g) * (y - sg(y))).astype(t.dtype)
                read = editor.apply(seen, read, mean, y_read)
            through[z] = read
        for (equation, k), found in edges.items():
            read = {active[x.group]: through[active[x.group]] for x in found}
            if found[0].kind is ExitKind.FORWARD:
                read = {z: editor.stopped(z) for z in read}
            equation.inputs[k] = editor.again(found[0].variable, read, mixing)


def _shadow(editor: Editor, edge: Edge, through: dict[Var, Atom], mixing: set[Edge]) -> Var:
    """The result of a fed operation again, from what is read in place of the activities."""
    equation, k = edge
    copy = equation.copy()
    copy.inputs = [editor.stopped(v) for v in equation.inputs]
    operand = equation.inputs[k]
    assert isinstance(operand, Var)
    copy.inputs[k] = editor.again(operand, through, mixing, editor.stopped)
    editor.equations.append(copy)
    return copy.outputs[0]


def _bottom_up(groups: list[int], edges: dict[Edge, list[Exit]]) -> list[int]:
    """Groups in an order in which each comes after those that feed it."""
    feeding = {
        g: [x.group for found in edges.values() for x in found if g in x.feeds] for g in groups
    }
    try:
        return list(graphlib.TopologicalSorter(feeding).static_order())
    except graphlib.CycleError:
        raise CompilationError(
            "OTPE is defined for layers that feed each other one way.",
            got="layers that feed each other in a circle",
            do="use OSTLRecurrent, EProp or D_RTRL",
        ) from None
