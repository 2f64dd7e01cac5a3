"""Learning rules as parts: the algorithms of the library, and what one of your own is made of.

A rule is an `Algorithm`, a frozen dataclass of its options, whose `parts()` name what is stored in
place of the influence of a weight (a kind of trace) and what is changed in the program of the cell
(edits). `register_algorithm` gives it a name for `braintrace.compile`, and
`braintrace.checks.check_rule` checks it. No framework.
"""

from ..core._domains import flag as flag
from ..core._domains import fraction as fraction
from ..core._domains import positive as positive
from ..core._domains import whole as whole
from ..core.analysis import Axes as Axes
from ..core.analysis import CellGraph as CellGraph
from ..core.analysis import Exit as Exit
from ..core.analysis import ExitKind as ExitKind
from ..core.analysis import Place as Place
from ..core.analysis import Site as Site
from ..core.engine import Rule as Rule
from ..core.signals import Edit as Edit
from ..core.signals import Editor as Editor
from ..core.signals import Feedback as Feedback
from ..core.signals import FiringRate as FiringRate
from ..core.signals import Modulator as Modulator
from ..core.signals import OutputFilter as OutputFilter
from ..core.signals import Postsynaptic as Postsynaptic
from ..core.signals import ScalarLeak as ScalarLeak
from ..core.signals import TargetProjection as TargetProjection
from ..core.traces import Carrier as Carrier
from ..core.traces import Draws as Draws
from ..core.traces import FactorCarrier as FactorCarrier
from ..core.traces import Factored as Factored
from ..core.traces import Kronecker as Kronecker
from ..core.traces import PerParameter as PerParameter
from ..core.traces import Presynaptic as Presynaptic
from ..core.traces import RankOne as RankOne
from ..core.traces import Sensitivity as Sensitivity
from ..core.traces import StepSignals as StepSignals
from ..core.traces import StepTrace as StepTrace
from ..core.traces import StochasticRounding as StochasticRounding
from ..core.traces import TraceCarrier as TraceCarrier
from ..core.traces import WholeState as WholeState
from ..core.traces import WithinLayer as WithinLayer
from ..core.traces import Zeros as Zeros
from ._algorithm import Algorithm as Algorithm
from ._algorithm import Compared as Compared
from ._d_rtrl import DRTRLRule as DRTRLRule
from ._decolle import DECOLLERule as DECOLLERule
from ._dni import DNIRule as DNIRule
from ._eprop import EPropRule as EPropRule
from ._etlp import ETLPRule as ETLPRule
from ._feedback import FixedRandomFeedback as FixedRandomFeedback
from ._kronecker import KFRTRLRule as KFRTRLRule
from ._kronecker import OKRTRLRule as OKRTRLRule
from ._mdgl import MDGLRule as MDGLRule
from ._modprop import ModPropRule as ModPropRule
from ._options import decay as decay
from ._options import drawn_or_given as drawn_or_given
from ._options import floating as floating
from ._options import matrices as matrices
from ._options import one_of as one_of
from ._options import option as option
from ._options import seed as seed
from ._ostl import OSTLFeedforwardRule as OSTLFeedforwardRule
from ._ostl import OSTLRecurrentRule as OSTLRecurrentRule
from ._osttp import OSTTPRule as OSTTPRule
from ._otpe import OTPERule as OTPERule
from ._ottt import OTTTRule as OTTTRule
from ._pp_prop import PPPropRule as PPPropRule
from ._registry import ALGORITHMS, algorithm_of
from ._registry import register_algorithm as register_algorithm
from ._rflo import RFLORule as RFLORule
from ._rtrl import RTRLRule as RTRLRule
from ._s_tllr import STLLRRule as STLLRRule
from ._sk_rtrl import SKRTRLRule as SKRTRLRule
from ._sltt import InstantaneousRule as InstantaneousRule
from ._sltt import SLTTRule as SLTTRule
from ._three_factor import ThreeFactorRule as ThreeFactorRule
from ._uoro import UORORule as UORORule

#: What a rule of one's own is made of; the algorithms are known to `compile` by their names.
__all__ = [
    "Algorithm",
    "Compared",
    "Rule",
    "option",
    "register_algorithm",
    "StepTrace",
    "StochasticRounding",
    "TraceCarrier",
    "FactorCarrier",
    "Carrier",
    "PerParameter",
    "Presynaptic",
    "Factored",
    "WithinLayer",
    "WholeState",
    "RankOne",
    "Kronecker",
    "Draws",
    "Zeros",
    "Axes",
    "Edit",
    "Editor",
    "OutputFilter",
    "Feedback",
    "FiringRate",
    "Modulator",
    "TargetProjection",
    "Postsynaptic",
    "ScalarLeak",
    "decay",
    "drawn_or_given",
    "flag",
    "floating",
    "fraction",
    "matrices",
    "one_of",
    "positive",
    "seed",
    "whole",
    "CellGraph",
    "Site",
    "Place",
    "Exit",
    "ExitKind",
    "Sensitivity",
    "StepSignals",
]
from ._random_rtrl import RandomRTRLRule as RandomRTRLRule
from ._snap import SnApRule as SnApRule
