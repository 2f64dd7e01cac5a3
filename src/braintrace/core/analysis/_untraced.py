"""What `stop_trace` keeps out of the traces: edges of the step, and values that are computed from
marked parameters.
"""

from collections.abc import Sequence

from .._compat import P
from .._errors import CompilationError
from ..jaxpr import Equation, Program, Var, is_bent, is_stop_trace, variables
from ._dependence import Edge, reach
from ._graph import CellGraph


def stopped_edges(equations: Sequence[Equation]) -> set[Edge]:
    """The edges that `stop_trace` marks."""
    return {(e, 0) for e in equations if is_stop_trace(e)}


def without_idle_marks(program: Program, n_carry: int) -> Program:
    """The program without marks of the user's that no new state comes from: they mean nothing."""
    ends = set(variables(program.outputs[:n_carry]))
    equations = [
        Equation(P.copy_p, e.inputs, e.outputs, {}, e.source)
        if is_stop_trace(e) and not is_bent(e) and not reach(program.equations, e.outputs) & ends
        else e
        for e in program.equations
    ]
    return Program(program.inputs, equations, program.outputs)


def untraced_values(graph: CellGraph) -> set[Var]:
    """The prelude's values that depend on parameters through marks, and must not do so
    otherwise.
    """
    marks = stopped_edges(graph.prelude)
    marked = reach(graph.prelude, [v for e, _ in marks for v in e.outputs])
    read = {v for e in graph.step for v in e.inputs}
    mixed = marked & reach(graph.prelude, graph.params, marks) & read
    if mixed:
        pairs = zip(graph.parameters, graph.params, strict=True)
        inside = [row.path for row, p in pairs if reach(graph.prelude, [p]) & mixed]
        raise CompilationError(
            "A weight is made of a parameter that is kept out of the traces and of one that "
            "is not.",
            got=inside,
            expected="a weight whose parameters all are, or none is",
            do="exclude all of these or none; to stop training one of them, leave it out of "
            "trainable=",
        )
    return marked
