"""KF-RTRL and OK: random sums of Kronecker products."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import whole
from ..core.engine import Rule
from ..core.traces import Kronecker
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("kf_rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KFRTRLRule(Algorithm):
    r"""Kronecker-factored RTRL: a random Kronecker product whose mean is the influence of a weight
    on all the hidden state.
    """

    name = "KF_RTRL"

    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B (I + n O))", "all layers, in the mean over keys"),)

    def parts(self) -> Rule:
        return Rule("KF_RTRL", Kronecker(1, optimal=False, dtype=self.trace_dtype))


@register_algorithm("ok_rtrl", "ok")
@dataclasses.dataclass(frozen=True, kw_only=True)
class OKRTRLRule(Algorithm):
    name = "OK_RTRL"

    rank: int = option(4, whole)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B r (I + n O))", "all layers, in the mean over keys"),)

    def parts(self) -> Rule:
        return Rule("OK_RTRL", Kronecker(self.rank, dtype=self.trace_dtype))
