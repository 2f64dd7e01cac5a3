"""`ControlFlowPolicy`: what staging does with control flow that parameters or hidden state
reach.
"""

import dataclasses

from .._domains import choice, whole
from .._errors import UsageError


@dataclasses.dataclass(frozen=True)
class ControlFlowPolicy:
    """What the compiler does with `cond`, `scan` and `while` inside a step, where parameters or
    hidden state reach them.

    Control flow that only inputs and constants reach always stays as it is. Unfolding changes no
    number: a converted `cond` evaluates every branch and selects, an unrolled `scan` computes what
    the loop computes. A branch may be undefined where it is not taken (a square root, a quotient):
    there its operations see a harmless number, and no derivative leaves them.

    Args:
        cond: 'convert' evaluates every branch and selects, so that the paths through them are
            traced; 'opaque' leaves the `cond` one operation that mixes all that enters it: its
            effect on the same step is exact, paths through it to later steps are left out and named
            in the report.
        scan_unroll_limit: the longest loop that is unrolled.
        scan_descent: for longer loops: 'auto' unrolls them too, at the price of compile time; 'off'
            refuses them.
        while_hidden: 'opaque-fwd' and 'error' both refuse a `while` loop that hidden state reaches:
            no gradient passes such a loop in reverse mode, and a path that is cut without notice
            would be worse than an error.
        etp_in_control_flow: what happens to a parameter inside control flow that is not unfolded:
            'error' refuses it; 'exclude' leaves the operation as it is, and the parameter has its
            instantaneous gradient.
        fixpoint_iteration_limit: how deeply control flow may nest.

    Raises:
        UsageError: for a value that is none of these.

    The names are those of the PyPI package braintrace (0.2.6). There a longer loop is folded
    (`scan_descent`) and a `while` loop is differentiated forwards; here the first is unrolled,
    which gives the same numbers, and the second refused.

    >>> import braintrace
    >>> braintrace.ControlFlowPolicy(cond="opaque").scan_unroll_limit
    16
    """

    cond: str = "convert"
    scan_unroll_limit: int = 16
    while_hidden: str = "opaque-fwd"
    etp_in_control_flow: str = "error"
    scan_descent: str = "auto"
    fixpoint_iteration_limit: int = 64

    def __post_init__(self) -> None:
        choices = {
            "cond": ("convert", "opaque"),
            "while_hidden": ("opaque-fwd", "error"),
            "etp_in_control_flow": ("error", "exclude"),
            "scan_descent": ("auto", "off"),
        }
        for name, known in choices.items():
            choice(f"{name} in a ControlFlowPolicy", getattr(self, name), known)
        for name, least in (("scan_unroll_limit", 0), ("fixpoint_iteration_limit", 1)):
            whole(f"{name} in a ControlFlowPolicy", getattr(self, name), least=least)

    def unrolls(self, length: int) -> bool:
        """Whether a loop of `length` sub-steps is unrolled."""
        return length <= self.scan_unroll_limit or self.scan_descent == "auto"


def checked_policy(value: object) -> None:
    """Refuse what is neither a policy nor None."""
    if not isinstance(value, ControlFlowPolicy | None):
        raise UsageError(
            "Invalid control_flow.",
            got=repr(value),
            expected="a ControlFlowPolicy, or None",
            do="pass braintrace.ControlFlowPolicy(cond='opaque'), say",
        )


@dataclasses.dataclass(frozen=True)
class Unfolding:
    """What staging did with one piece of control flow: `operation` is 'cond' or 'scan', `length`
    its branches or sub-steps.
    """

    operation: str
    length: int
    opaque: bool
    source: str
