"""`Algorithm`: what every algorithm is."""

import abc
import dataclasses
from typing import Any, ClassVar

from ..core.engine import Rule


@dataclasses.dataclass(frozen=True)
class Algorithm(abc.ABC):
    """An algorithm: its hyperparameters, checked when they are given, and the parts they choose.

    A subclass is a frozen dataclass, too. Its fields are the options of `braintrace.compile` and of
    the classes that front ends make of it; a field called `trace_dtype` comes last. It knows no
    framework.
    """

    name: ClassVar[str]  # the public name, as users write it
    multi_step: ClassVar[bool] = True  # whether BPTT inside a window can go with its traces

    @abc.abstractmethod
    def parts(self) -> Rule:
        """What the engine runs."""

    def _set(self, **values: Any) -> None:
        """Bring fields into one form, from `__post_init__`."""
        for name, value in values.items():
            object.__setattr__(self, name, value)
