"""`ETraceVjpAlgorithm`, and how a rule becomes a class of learners."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import brainstate

from ...core._domains import choice, known
from ...core._errors import UsageError
from ...core.engine import Rule
from ...core.jaxpr import ControlFlowPolicy, checked_policy
from ...rules import Algorithm
from ._algorithm import ETraceAlgorithm

_CLASSES: dict[type[Algorithm], type["ETraceVjpAlgorithm"]] = {}


class ETraceVjpAlgorithm(ETraceAlgorithm):
    """An algorithm whose learning signal comes from reverse-mode differentiation.

    The options of an algorithm are attributes of its learners.

    `vjp_method` says what a call with `MultiStepData` differentiates: 'single-step' gives the sum
    of the online gradients of its steps; 'multi-step' BPTT inside the call plus the traces at its
    entry, which is another value. A state that comes to its own next value through products alone
    (that of a vanilla RNN) has a trace for this, which a learner of single steps does without.

    Args:
        control_flow: a `ControlFlowPolicy` for loops and branches in the step.
        fast_solve, chunked_trace, snap_max_jacobian_elements: of no effect. In the PyPI package
            braintrace they choose between ways to compute the same values.

    Raises:
        UsageError: for an unknown `vjp_method`, or one that the algorithm has not.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, "d_rtrl", jnp.zeros(2), vjp_method="multi-step")
    >>> learner(braintrace.MultiStepData(jnp.ones((5, 2)))).shape
    (5, 1)
    """

    __module__ = "braintrace"

    algorithm: ClassVar[type[Algorithm] | None] = None  # what the class is made of
    _given: Algorithm  # its options

    def __init_subclass__(cls, algorithm: type[Algorithm] | None = None, **more: Any):
        super().__init_subclass__(**more)
        if algorithm is not None:
            cls.algorithm = algorithm
            cls.__doc__ = cls.__dict__.get("__doc__") or _documented(algorithm)
            cls.__init__ = _initialiser(algorithm)
            for field in inspect.signature(algorithm).parameters:
                if not hasattr(cls, field):
                    setattr(cls, field, _option(field))
            _CLASSES[algorithm] = cls

    def __init__(
        self,
        model: brainstate.nn.Module,
        rule: Rule,
        *,
        vjp_method: str = "single-step",
        name: str | None = None,
        control_flow: ControlFlowPolicy | None = None,
        fast_solve: bool = True,
        chunked_trace: bool = True,
        snap_max_jacobian_elements: int | None = None,
    ):
        super().__init__(model, rule, name)
        checked_policy(control_flow)
        if control_flow is not None:
            self._analysis["control_flow"] = control_flow
        choice("vjp_method", vjp_method, ("single-step", "multi-step"))
        if vjp_method == "multi-step" and rule.multi_step_problem:
            raise UsageError(
                f"{rule.name} has no multi-step form.",
                got="vjp_method='multi-step'",
                expected="'single-step'",
                do=rule.multi_step_problem,
            )
        self.vjp_method = vjp_method
        self._full = vjp_method == "multi-step"
        self._analysis["multi_step"] = self._full


_PARAMETERS = inspect.signature(ETraceVjpAlgorithm.__init__).parameters
_SETTINGS = {n for n, p in _PARAMETERS.items() if p.kind is p.KEYWORD_ONLY}


def class_of(algorithm: type[Algorithm]) -> type[ETraceVjpAlgorithm]:
    """The class of learners that is made of an algorithm."""
    if algorithm not in _CLASSES:
        body = {"__module__": algorithm.__module__}
        type(algorithm.name, (ETraceVjpAlgorithm,), body, algorithm=algorithm)
    return _CLASSES[algorithm]


def _initialiser(algorithm: type[Algorithm]) -> Callable[..., None]:
    """`__init__(self, model, <the rule's fields>, name, **settings)`; `vjp_method` stands in front
    of `trace_dtype` where the algorithm has a multi-step form.
    """
    own, model, method, name, settings = inspect.signature(_template).parameters.values()
    fields, names = [], tuple(inspect.signature(algorithm).parameters)
    for field in inspect.signature(algorithm).parameters.values():
        in_front = algorithm.multi_step and field.name == "trace_dtype"
        fields += [method, field] if in_front else [field]

    def __init__(self: Any, model: brainstate.nn.Module, *args: Any, **options: Any) -> None:
        known(type(self).__name__, options, (*names, "name"), _SETTINGS)
        chosen = {k: options.pop(k) for k in _SETTINGS & options.keys()}
        given = algorithm(*args, **options)
        ETraceVjpAlgorithm.__init__(self, model, given.rule(), **chosen)
        self._given = given

    signature = inspect.Signature([own, model, *fields, name, settings])
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _option(name: str) -> property:
    """An option of an algorithm as an attribute of its learners."""
    return property(lambda self: getattr(self._given, name), doc=f"The option {name}, as checked.")


def _template(
    self: Any,
    model: brainstate.nn.Module,
    *,
    vjp_method: str = "single-step",
    name: str | None = None,
    **settings: Any,
) -> None:
    """What the classes' `__init__` have beside the fields of their rule."""


def _documented(algorithm: type[Algorithm]) -> str:
    """The rule's docstring with the arguments that every class of learners has."""
    documented = inspect.getdoc(algorithm) or ""
    head, args, tail = documented.partition("Args:\n")
    if not args:  # it has no options: in front of the example
        head, example, rest = documented.partition(">>> ")
        tail = f"\n\n{example}{rest}"
    fields, _, rest = tail.partition("\n\n")
    method = (
        "    vjp_method: 'single-step', or 'multi-step' for BPTT inside a call with\n"
        "        `MultiStepData` plus the traces at its entry.\n"
    )
    return (
        f"{head}Args:\n    model: a one-step brainstate module whose states are initialised.\n"
        f"{fields}\n{method if algorithm.multi_step else ''}    name: the module's name.\n"
        f"    **settings: `control_flow`; see `ETraceVjpAlgorithm`.\n\n{rest}"
    )
