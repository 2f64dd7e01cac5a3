"""What is here for programs of the PyPI package braintrace alone.

`_coordinates`, `_configured`, `_data`, `_operators` and `_instead` know no framework; the other
modules are for brainstate models, and are imported by their name.
"""

from ._configured import configured as configured
from ._configured import coordinates as coordinates
from ._coordinates import ETraceConfig as ETraceConfig
from ._data import MultiStepData as MultiStepData
from ._data import SingleStepData as SingleStepData
from ._operators import ETPPrimitive as ETPPrimitive
from ._operators import register_primitive as register_primitive
