"""The front end for brainstate modules: learners that wrap a `brainstate.nn.Module`."""

from ...compat import _precision as _precision  # isort: skip  (first: it guards the precision)
from . import _algorithms as _algorithms
from ._initial import compile_model as compile_model
from ._made import class_of as class_of
