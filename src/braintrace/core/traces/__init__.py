"""Kinds of traces: what an algorithm stores in place of the influence of a weight on the hidden
state.
"""

from ._carrier import Carrier as Carrier
from ._carrier import FactorCarrier as FactorCarrier
from ._carrier import StepSignals as StepSignals
from ._carrier import TraceCarrier as TraceCarrier
from ._carrier import Traces as Traces
from ._draws import Draws as Draws
from ._draws import begun as begun
from ._draws import draws_in as draws_in
from ._draws import key_words as key_words
from ._draws import with_key as with_key
from ._events import window_factors as window_factors
from ._events import window_gradients as window_gradients
from ._factored import Factored as Factored
from ._filters import kappa_step as kappa_step
from ._filters import leaky_step as leaky_step
from ._kronecker import Kronecker as Kronecker
from ._no_trace import NoTrace as NoTrace
from ._one_hop import OneHop as OneHop
from ._per_parameter import PerParameter as PerParameter
from ._presynaptic import Presynaptic as Presynaptic
from ._random_mask import RandomMask as RandomMask
from ._rank_one import RankOne as RankOne
from ._rounded import StochasticRounding as StochasticRounding
from ._rounded import rounded as rounded
from ._rounded import unrounded as unrounded
from ._sensitivity import Sensitivity as Sensitivity
from ._sensitivity import Unread as Unread
from ._sensitivity import cleared_data as cleared_data
from ._sensitivity import cleared_drives as cleared_drives
from ._sensitivity import every_drive as every_drive
from ._sensitivity import pulled_back as pulled_back
from ._sensitivity import scan as scan
from ._sensitivity import sensitivity as sensitivity
from ._sensitivity import sensitivity_bytes as sensitivity_bytes
from ._sensitivity import zero_perturbations as zero_perturbations
from ._sketch import ErrorBound as ErrorBound
from ._sketch import Sketch as Sketch
from ._slots import nbytes as nbytes
from ._snap import WithinSteps as WithinSteps
from ._step_trace import StepTrace as StepTrace
from ._taps import Taps as Taps
from ._whole_state import WholeState as WholeState
from ._within_layer import WithinLayer as WithinLayer
