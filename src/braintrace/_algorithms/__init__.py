"""The algorithms: a name and a choice of parts each."""

from .._frontends._brainstate import ETraceVjpAlgorithm
from ._d_rtrl import D_RTRL as D_RTRL
from ._d_rtrl import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm

#: Algorithms by name, in small letters.
ALGORITHMS: dict[str, type[ETraceVjpAlgorithm]] = {
    "d_rtrl": D_RTRL,
}
