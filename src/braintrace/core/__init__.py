"""What the library computes with: JAX and NumPy alone."""

from ._errors import CompilationError as CompilationError
from ._errors import UsageError as UsageError

__version__ = "0.1.0"
