"""Which front end a model has. A framework that is not imported made no model."""

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Any

from jaxtyping import PyTree

from ..core._errors import UsageError

_BATCH = ("batch_size", "batch_axes", "batch")


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """A module here with `compile_model`, and what it takes of `braintrace.compile`."""

    module: str
    models: str  # what it serves, in words
    framework: str | None  # the module whose `Module` its models are; None for functions
    options: tuple[str, ...]
    single: bool = False  # whether its models have one input

    def load(self) -> ModuleType:
        """The module."""
        return importlib.import_module(f".{self.module}", __package__)

    def check(self, given: dict[str, Any], inputs: tuple[PyTree, ...]) -> None:
        """Refuse the options, and the number of inputs, that are for other models."""
        if wrong := [k for k in given if k not in self.options]:
            others = [f.models for f in FRONT_ENDS if set(wrong) <= set(f.options)]
            raise UsageError(
                f"{' and '.join(wrong)}: not for {self.models}.",
                got=", ".join(wrong) + (f", for {' or '.join(others)}" if others else ""),
                expected=f"of these options only {', '.join(self.options)}",
                do="a function has its batch in params and carry; a module holds its own "
                "parameters",
            )
        if self.single and len(inputs) != 1:
            raise UsageError(
                f"Too many inputs for {self.models}.",
                got=f"{len(inputs)} example inputs",
                expected="one, which may be a tree",
                do="pass a tuple of inputs as one; an Equinox module gets them apart with "
                "call=lambda model, carry, x: model(*x, carry)",
            )


FRONT_ENDS = (
    FrontEnd(
        "brainstate",
        "a brainstate module",
        "brainstate.nn",
        ("batch_size", "seed", "vmap", "axis_name"),
    ),
    FrontEnd("nnx", "an NNX module", "flax.nnx", ("carry", "wrt", "vmap", *_BATCH)),
    FrontEnd("equinox", "an Equinox module", "equinox", ("carry", "call", "vmap", *_BATCH), True),
    FrontEnd("function", "a plain function", None, ("params", "carry", *_BATCH), True),
)


def front_end_of(model: object) -> FrontEnd:
    """The front end that serves `model`."""
    for front_end in FRONT_ENDS[:-1]:
        if _made_by(model, front_end.framework):
            return front_end
    if _made_by(model, "flax.linen"):
        raise UsageError(
            "A Linen module is called through its apply function.",
            got=type(model).__name__,
            expected="a function (params, carry, x) -> (carry, out)",
            do="compile(model.apply, algorithm, x, params=variables, carry=carry)",
        )
    if isinstance(model, type) or not callable(model):
        is_class = isinstance(model, type)
        raise UsageError(
            "Not a model.",
            got=f"the class {model.__name__}" if is_class else type(model).__name__,
            expected="a brainstate, NNX or Equinox module, or a function (params, carry, x) -> "
            "(carry, out)",
            do="make an instance of the class"
            if is_class
            else "call compile(model, algorithm, x), with the model first",
        )
    return FRONT_ENDS[-1]


def _made_by(model: object, framework: str | None) -> bool:
    module = getattr(sys.modules.get(framework or ""), "Module", None)
    return module is not None and isinstance(model, module)
