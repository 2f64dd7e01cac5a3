"""Every algorithm side by side on one model: memory, time, exactness."""

from ._cells import CELLS as CELLS
from ._cells import Model as Model
from ._measure import Row as Row
from ._measure import algorithms as algorithms
from ._measure import measure as measure
from ._measure import table as table
