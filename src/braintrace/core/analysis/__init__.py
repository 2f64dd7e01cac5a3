"""The static analysis of a cell: what depends on what, which elements belong to one neuron, where
parameters meet data.
"""

from ._analyse import Signature as Signature
from ._analyse import analyse as analyse
from ._batch import BatchClaim as BatchClaim
from ._batch import axes_of_results as axes_of_results
from ._batch import stays_apart as stays_apart
from ._batch import tells_apart as tells_apart
from ._batch_axis import BatchAxis as BatchAxis
from ._dependence import depends as depends
from ._dependence import reach as reach
from ._division import Axes as Axes
from ._division import axes_of_carry as axes_of_carry
from ._division import axes_of_data as axes_of_data
from ._division import axes_of_entries as axes_of_entries
from ._division import axes_of_others as axes_of_others
from ._division import axes_of_params as axes_of_params
from ._division import axes_of_part as axes_of_part
from ._division import axes_of_y as axes_of_y
from ._division import whole_samples as whole_samples
from ._elements import as_array as as_array
from ._exits import Exit as Exit
from ._exits import ExitKind as ExitKind
from ._exits import activities as activities
from ._exits import find_exits as find_exits
from ._exits import joined_at as joined_at
from ._graph import CellGraph as CellGraph
from ._graph import Exactness as Exactness
from ._graph import ExtraLeaf as ExtraLeaf
from ._graph import LayerPlan as LayerPlan
from ._graph import ParameterRow as ParameterRow
from ._graph import Place as Place
from ._graph import Site as Site
from ._graph import Slot as Slot
from ._layers import fed_layers as fed_layers
from ._layers import moved_leaves as moved_leaves
from ._layers import with_layers as with_layers
from ._normalisation import normalisations as normalisations
from ._outlets import with_outlets as with_outlets
from ._report import columns as columns
from ._report import dims as dims
from ._report import short as short
from ._report import size as size
from ._structure import Structure as Structure
from ._structure import prelude_nonzero as prelude_nonzero
from ._structure import structure_of as structure_of
