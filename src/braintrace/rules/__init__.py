"""The algorithms: a name and a choice of parts each."""

from ..frontends.brainstate import ETraceVjpAlgorithm
from ._d_rtrl import D_RTRL as D_RTRL
from ._d_rtrl import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm
from ._eprop import EProp as EProp
from ._helpers import FixedRandomFeedback as FixedRandomFeedback
from ._helpers import KappaFilter as KappaFilter
from ._helpers import PresynapticTrace as PresynapticTrace
from ._ostl import OSTLFeedforward as OSTLFeedforward
from ._ostl import OSTLRecurrent as OSTLRecurrent
from ._osttp import OSTTP as OSTTP
from ._otpe import OTPE as OTPE
from ._ottt import OTTT as OTTT
from ._pp_prop import ES_D_RTRL as ES_D_RTRL
from ._pp_prop import IODimVjpAlgorithm as IODimVjpAlgorithm
from ._pp_prop import pp_prop as pp_prop
from ._rflo import RFLO as RFLO

#: Algorithms by name, in small letters.
ALGORITHMS: dict[str, type[ETraceVjpAlgorithm]] = {
    "d_rtrl": D_RTRL,
    "pp_prop": pp_prop,
    "es_d_rtrl": ES_D_RTRL,
    "esd_rtrl": ES_D_RTRL,
    "eprop": EProp,
    "e_prop": EProp,
    "ostl_recurrent": OSTLRecurrent,
    "ostl_feedforward": OSTLFeedforward,
    "otpe": OTPE,
    "ottt": OTTT,
    "osttp": OSTTP,
    "rflo": RFLO,
}
