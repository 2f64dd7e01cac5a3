"""`Algorithm`: what every algorithm is."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from jax.typing import DTypeLike

from ..compat import ETraceConfig, configured
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.traces import Carrier, StochasticRounding, rounded
from ._options import Seed, floating, option, seed, text


class Compared(NamedTuple):
    """A row of `python -m braintrace compare`: the options that are compared, how the memory of
    traces grows, and what of the gradient is kept. `variant` stands behind the name.

    >>> from braintrace import rules
    >>> rules.Compared({"leak": 0.9}, "O(B I)", "a constant leak").grows
    'O(B I)'
    """

    options: Mapping[str, Any]
    grows: str
    keeps: str
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Algorithm(abc.ABC):
    """An algorithm: its hyperparameters, checked when they are given, and the parts they choose.

    A subclass is a frozen dataclass, too. Its fields are the options of `braintrace.compile` and of
    the classes that front ends make of it; an `option` has a check; a field called `trace_dtype`
    comes last. It knows no framework.

    >>> import dataclasses
    >>> import braintrace, jax.numpy as jnp
    >>> from braintrace import rules
    >>> @rules.register_algorithm("no_memory")
    ... @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class NoMemory(rules.Algorithm):
    ...     name = "NoMemory"
    ...     def parts(self):
    ...         return rules.Rule("no memory", rules.Presynaptic((0.0,)))
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> braintrace.compile(cell, "no_memory", x, params=w, carry=h).rule.name
    'no memory'
    """

    name: ClassVar[str]  # the public name, as users write it
    multi_step: ClassVar[bool] = True  # whether BPTT inside a window can go with its traces

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, check = getattr(self, field.name), field.metadata.get("check")
            left_out = value is None and field.default is None
            if check and (field.metadata["needed"] or not left_out):
                object.__setattr__(self, field.name, check(field.name, value))

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        """With what options `compare` runs it on a model whose neurons have this leak."""
        return (Compared({}, "", ""),)

    @abc.abstractmethod
    def parts(self) -> Rule:
        """What the engine runs."""

    def chosen(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Its options by name; `more` options beside them are refused."""
        if more:
            raise UsageError(
                f"{self.name} has its options already.",
                got=", ".join(more),
                expected="no options beside it",
                do="pass the class with options, or an instance alone",
            )
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def rule(self) -> Rule:
        """`parts`, which say by what options they were chosen: what a state is known by. The dtype
        of its traces speaks for `trace_dtype`.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name != "trace_dtype"]
        options = tuple((name, text(getattr(self, name))) for name in names)
        rounding = getattr(self, "trace_dtype", None)
        rounding = rounding if isinstance(rounding, StochasticRounding) else None
        wide: dict[str, Any] = {"trace_dtype": None} if rounding else {}
        parts = dataclasses.replace(self, **wide).parts()
        if not (isinstance(parts, Rule) and isinstance(parts.carrier, Carrier)):
            raise UsageError(
                f"The parts of {self.name} are no rule.",
                got=repr(parts),
                expected="a Rule with a kind of traces",
                do='return rules.Rule("my rule", rules.PerParameter()) from parts(), say',
            )
        carrier = rounded(parts.carrier, rounding) if rounding else parts.carrier
        return dataclasses.replace(parts, carrier=carrier, options=options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configurable(Algorithm):
    """An algorithm that takes a point of the axes of `ETraceConfig` in place of its own parts."""

    factored: ClassVar[bool]  # whether its traces are

    trace_dtype: DTypeLike | None = option(None, floating)
    config: ETraceConfig | None = None
    random_feedback_key: Seed = option(None, seed)

    def __post_init__(self) -> None:
        super().__post_init__()
        of = self.config
        if of is None or (isinstance(of, ETraceConfig) and of.is_factorized is self.factored):
            return
        wanted = "io_factorized" if self.factored else "per_param"
        raise UsageError(
            "Invalid config.",
            got=repr(of),
            expected=f"an ETraceConfig with trace_factorization={wanted!r}",
            do="pass the config to braintrace.compile in the algorithm's place: it chooses the "
            "class",
        )

    def configured(self) -> Rule | None:
        """The parts of the config; None without one."""
        of, key, dtype = self.config, self.random_feedback_key, self.trace_dtype
        return of and configured(of, random_feedback_key=key, trace_dtype=dtype)
