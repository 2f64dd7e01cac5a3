"""The algorithms: the hyperparameters of each and the parts that they choose. No framework."""

from ._algorithm import Algorithm
from ._d_rtrl import DRTRLRule
from ._eprop import EPropRule
from ._feedback import FixedRandomFeedback
from ._ostl import OSTLFeedforwardRule, OSTLRecurrentRule
from ._osttp import OSTTPRule
from ._otpe import OTPERule
from ._ottt import OTTTRule
from ._pp_prop import PPPropRule
from ._registry import ALGORITHMS, algorithm_of
from ._rflo import RFLORule
