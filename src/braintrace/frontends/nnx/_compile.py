"""From an NNX module to its learner."""

import inspect
from typing import Any

from flax import nnx
from jaxtyping import PyTree

from ...core._errors import UsageError
from ...core.engine import Rule
from ._learner import NNXLearner


def compile_model(
    model: nnx.Module,
    rule: Rule,
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> NNXLearner:
    """A learner of `model`; `given` may hold `carry`, `wrt`, `vmap` and what is said about the
    batch.
    """
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
    _check_call(model, len(inputs), "carry" in given)
    return NNXLearner(model, rule, inputs, given, **analysis)


def _check_call(model: Any, inputs: int, with_carry: bool) -> None:
    """The module takes the inputs, and a carry if and only if one is given."""
    signature = inspect.signature(model)

    def takes(count: int) -> bool:
        try:
            signature.bind(*range(count))
        except TypeError:
            return False
        return True

    if not takes(inputs + with_carry):
        missing = not with_carry and takes(inputs + 1)
        raise UsageError(
            "The carry is missing." if missing else "The module does not take what it is given.",
            got=f"{type(model).__name__}{signature}, and {inputs} example input(s) "
            f"{'with' if with_carry else 'without'} carry=",
            expected="a module called as model(carry, x) -> (carry, out) with carry=..., or as "
            "model(x) -> out without",
            do="pass carry=, the state before the first step, batch first: jnp.zeros((batch, "
            "hidden)), say"
            if missing
            else "pass an example of each of its inputs, and carry= if it takes its carry first",
        )
