"""The carrier of traces by position under a signal that goes one step back through products: MDGL.

    C[s] <- sum_q D[s, q] C[q] + f[s] * x                 as `PerParameter`
    gradient of W = sum over s of  (dL/dh_old[s]) C_old[s]  +  its own step's

with dL/dh_old the derivative of the step's loss by the old state along every path of the step: also
from one neuron to another.
"""

import dataclasses

from ..analysis import CellGraph
from ._per_parameter import PerParameter


@dataclasses.dataclass(frozen=True)
class OneHop(PerParameter):
    """`PerParameter` under that signal. Memory and time are its own."""

    def arrange(self, graph: CellGraph) -> CellGraph:
        return dataclasses.replace(graph, one_hop=True)
