"""What is here for programs of the PyPI package braintrace alone."""

from ._configured import configured as configured
from ._configured import coordinates as coordinates
from ._coordinates import ETraceConfig as ETraceConfig
