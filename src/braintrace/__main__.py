"""`python -m braintrace`."""

import sys

from ._cli import main

sys.exit(main())
