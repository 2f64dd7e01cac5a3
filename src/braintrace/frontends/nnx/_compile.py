"""`compile_model`: from an NNX module to its learner."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import PyTree

from ...core._errors import UsageError
from ...rules import Algorithm
from ._learner import NNXLearner


def compile_model(
    model: nnx.Module,
    algorithm: Callable[[], Algorithm],
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> NNXLearner:
    """A learner of `model`; `given` may hold `carry`, `wrt`, `vmap` and what is said about the
    batch.
    """
    rule = algorithm().parts()
    if isinstance(model, (nnx.RNN, nnx.Bidirectional)):
        raise UsageError(
            f"nnx.{type(model).__name__} runs whole sequences.",
            expected="a module that does one step",
            do="pass its cell, with carry=cell.initialize_carry(x.shape, rngs); etrace_grad runs "
            "the sequence",
        )
    if "carry" not in given and hasattr(model, "initialize_carry"):
        raise UsageError(
            "The carry is missing.",
            got=f"{type(model).__name__}, called as model(carry, x)",
            expected="carry=...",
            do="pass carry=model.initialize_carry(x.shape, rngs)",
        )
    if not callable(model):
        raise UsageError(
            "The module cannot be called.",
            got=type(model).__name__,
            expected="a module called as model(carry, x) -> (carry, out) or model(x) -> out",
            do="give it __call__",
        )
    return NNXLearner(model, rule, inputs, given, **analysis)
