"""Random cells with an oracle by construction, and what every algorithm must do with them.

`cell_of(seed)` draws a cell as a case of the zoo is written: plain JAX with the marks `old` and
`mix`, which give its D-RTRL gradient by two evaluations. `check(seed)` raises `AssertionError`
where a gradient or a certificate is wrong. `python -m fuzz -n 1000` from `tests` does many.
"""

from ._cells import cell_of
from ._check import check

__all__ = ["cell_of", "check"]
