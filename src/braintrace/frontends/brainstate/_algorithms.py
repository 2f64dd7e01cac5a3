"""The algorithms as classes of brainstate learners, made of the rules: options are written once,
there.
"""

from typing import Any

from ... import rules
from ...core.signals import SyntheticGradient
from ._made import ETraceVjpAlgorithm, class_of
from ._views import FactorisedDecays


class ParamDimVjpAlgorithm(ETraceVjpAlgorithm, algorithm=rules.DRTRLRule):
    __init__: Any


class D_RTRL(ParamDimVjpAlgorithm, algorithm=rules.DRTRLRule):
    """D-RTRL under its usual name: the equations, costs and options of `ParamDimVjpAlgorithm`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell, x = brainstate.nn.GRUCell(2, 3), jnp.zeros((4, 2))
    >>> learner = braintrace.compile(cell, braintrace.D_RTRL, x, batch_size=4)
    >>> learner(x).shape
    (4, 3)
    """


class IODimVjpAlgorithm(FactorisedDecays, ETraceVjpAlgorithm, algorithm=rules.PPPropRule):
    __init__: Any


class pp_prop(IODimVjpAlgorithm, algorithm=rules.PPPropRule):
    """ES-D-RTRL, or pp_prop, under its usual names: the equations, costs and options of
    `IODimVjpAlgorithm`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell, x = brainstate.nn.GRUCell(2, 3), jnp.zeros(2)
    >>> learner = braintrace.compile(cell, braintrace.ES_D_RTRL, x, decay_or_rank=0.9)
    >>> learner.config.trace_factorization
    'io_factorized'
    """


ES_D_RTRL = pp_prop


class EProp(ETraceVjpAlgorithm, algorithm=rules.EPropRule):
    __init__: Any


class OSTLRecurrent(ETraceVjpAlgorithm, algorithm=rules.OSTLRecurrentRule):
    __init__: Any
    regime = "with-H"


class OSTLFeedforward(FactorisedDecays, ETraceVjpAlgorithm, algorithm=rules.OSTLFeedforwardRule):
    __init__: Any
    regime = "without-H"


class OTPE(ETraceVjpAlgorithm, algorithm=rules.OTPERule):
    __init__: Any


class OTTT(ETraceVjpAlgorithm, algorithm=rules.OTTTRule):
    __init__: Any

    @property
    def mode(self) -> str | int | None:
        """When `etrace_fit` updates: 'A' once per sequence, 'O' at every step."""
        return self._rule.schedule


class OSTTP(ETraceVjpAlgorithm, algorithm=rules.OSTTPRule):
    __init__: Any


class RFLO(ETraceVjpAlgorithm, algorithm=rules.RFLORule):
    __init__: Any


class SK_RTRL(ETraceVjpAlgorithm, algorithm=rules.SKRTRLRule):
    __init__: Any


class ETLP(ETraceVjpAlgorithm, algorithm=rules.ETLPRule):
    __init__: Any


class DECOLLE(ETraceVjpAlgorithm, algorithm=rules.DECOLLERule):
    __init__: Any


class Instantaneous(ETraceVjpAlgorithm, algorithm=rules.InstantaneousRule):
    __init__: Any


class SLTT(ETraceVjpAlgorithm, algorithm=rules.SLTTRule):
    __init__: Any


class DNI(ETraceVjpAlgorithm, algorithm=rules.DNIRule):
    __init__: Any

    def attach_synthesizer(self, synthesizer: SyntheticGradient) -> None:
        """Let M begin anew as this estimator; of a compiled learner it has the same form, the width
        of a hidden layer above all.
        """
        if self.is_compiled:
            size = len(synthesizer.weights(self.etrace.value)[-1])
            first = synthesizer.initial(size)
            self.etrace.value = synthesizer.placed(self.etrace.value, first)
        else:
            self._rule = rules.DNIRule(synthesizer=synthesizer).rule()

    def group_signal_shapes(self) -> dict[int, tuple[int, ...]]:
        """By the number of a hidden group, the shape of its state, its variables last."""
        graph = self.functional.graph
        shape = lambda group: graph.carry[group.leaves[0]].shape
        return {n: (*shape(group), len(group.slots)) for n, group in enumerate(graph.groups)}


class UORO(ETraceVjpAlgorithm, algorithm=rules.UORORule):
    __init__: Any


class KF_RTRL(ETraceVjpAlgorithm, algorithm=rules.KFRTRLRule):
    __init__: Any


class OK_RTRL(ETraceVjpAlgorithm, algorithm=rules.OKRTRLRule):
    __init__: Any


class ThreeFactor(ETraceVjpAlgorithm, algorithm=rules.ThreeFactorRule):
    __init__: Any


class MDGL(ETraceVjpAlgorithm, algorithm=rules.MDGLRule):
    __init__: Any


class ModProp(ETraceVjpAlgorithm, algorithm=rules.ModPropRule):
    __init__: Any


class RTRL(ETraceVjpAlgorithm, algorithm=rules.RTRLRule):
    __init__: Any


class S_TLLR(ETraceVjpAlgorithm, algorithm=rules.STLLRRule):
    __init__: Any


class SnAp(ETraceVjpAlgorithm, algorithm=rules.SnApRule):
    __init__: Any


class RandomRTRL(ETraceVjpAlgorithm, algorithm=rules.RandomRTRLRule):
    __init__: Any


for _made in (ParamDimVjpAlgorithm, IODimVjpAlgorithm, *map(class_of, rules.ALGORITHMS.values())):
    _made.__module__ = "braintrace"
