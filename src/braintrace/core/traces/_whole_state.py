"""The carrier of the whole influence: of each weight on all the hidden state, sample by sample."""

import dataclasses

from ..analysis import CellGraph, with_layers
from ._within_layer import WithinLayer


@dataclasses.dataclass(frozen=True)
class WholeState(WithinLayer):
    """`WithinLayer` of one layer that is all the hidden state: layers above and below included.
    Memory O(B n |theta|), n over all layers.

    >>> from braintrace import rules
    >>> isinstance(rules.WholeState(), rules.WithinLayer)
    True
    """

    def arrange(self, graph: CellGraph) -> CellGraph:
        return with_layers(graph, together=True)
