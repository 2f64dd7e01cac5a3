"""The algorithms: the hyperparameters of each and the parts that they choose. No framework."""

from ._algorithm import Algorithm as Algorithm
from ._algorithm import Compared as Compared
from ._d_rtrl import DRTRLRule as DRTRLRule
from ._eprop import EPropRule as EPropRule
from ._feedback import FixedRandomFeedback as FixedRandomFeedback
from ._ostl import OSTLFeedforwardRule as OSTLFeedforwardRule
from ._ostl import OSTLRecurrentRule as OSTLRecurrentRule
from ._osttp import OSTTPRule as OSTTPRule
from ._otpe import OTPERule as OTPERule
from ._ottt import OTTTRule as OTTTRule
from ._pp_prop import PPPropRule as PPPropRule
from ._random_rtrl import RandomRTRLRule as RandomRTRLRule
from ._registry import ALGORITHMS as ALGORITHMS
from ._registry import algorithm_of as algorithm_of
from ._registry import register_algorithm as register_algorithm
from ._rflo import RFLORule as RFLORule
from ._rtrl import RTRLRule as RTRLRule
from ._snap import SnApRule as SnApRule
