"""For all tests: the programs are small and run once or twice, so compiling them quickly matters, and running them does not."""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
