"""`compile`: one call from a model to a learner."""

import inspect
from collections.abc import Callable
from typing import Any

import brainstate

from ._algorithms import ALGORITHMS, IODimVjpAlgorithm, ParamDimVjpAlgorithm
from ._errors import UsageError, problem
from ._frontends._brainstate import ETraceAlgorithm, ETraceVjpAlgorithm, ETraceVmap, compile_module
from ._frontends._function import FunctionLearner
from ._jaxpr._policy import ControlFlowPolicy
from ._parts._coordinates import ETraceConfig

_ABSENT: Any = object()


def compile(
    model: brainstate.nn.Module | Callable[..., Any], algorithm: str | type[ETraceAlgorithm] | ETraceConfig, *example_inputs: Any,
    batch_size: int | None = None, seed: int | None = None, verbose: int = 0, vmap: bool = False, params: Any = _ABSENT,
    carry: Any = _ABSENT, unroll_limit: int = 64, max_slots: int = 16, memory_budget: int | None = None,
    control_flow: ControlFlowPolicy | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Make a learner of a model.

    Args:
        model: a brainstate module that does one step, or a function `(params, carry, x) -> (carry, out)`.
        algorithm: a class such as `D_RTRL`, its name in any case, 'd_rtrl', or an `ETraceConfig`.
        *example_inputs: the inputs of one step. Only shapes and dtypes count.
        batch_size: the batch size with which the module's states are initialised (`init_state(batch_size=...)`).
        seed: seed for initialising the states; brainstate's default key is as before afterwards.
        verbose: 1 prints the report, 2 also the compiler's warnings.
        vmap: whether the module is written for one sample: it is then initialised and mapped over axis 0 of the inputs, and
            its random states are split over the samples.
        params: for a function: its parameters.
        carry: for a function: its carry before the first step.
        unroll_limit: the longest loop inside a step that is unrolled.
        max_slots: how many state variables one position may have.
        memory_budget: the most bytes that a sequence's gradient may need (see the learner's `memory_plan`): the default window is
            chosen to fit, and what cannot fit is refused with a proposal. None for no limit.
        control_flow: a `ControlFlowPolicy` for loops and branches inside a step, in place of `unroll_limit`.
        **options: the algorithm's own.

    Returns:
        For a module the algorithm itself, compiled: call it where you called the model; with `vmap` an `ETraceVmap` of it. For a
        function a `FunctionLearner`.

    Raises:
        UsageError: for an unknown algorithm or option, missing inputs or a missing batch size.
        CompilationError: for a model that cannot be analysed. The states of a module that fails stay as initialised.
    """
    chosen = _algorithm(algorithm)
    if isinstance(algorithm, ETraceConfig):
        options.setdefault("config", algorithm)
    if verbose not in (0, 1, 2):
        raise UsageError(problem("Unknown verbose.", got=repr(verbose), expected="0, 1 or 2"))
    if not example_inputs:
        raise UsageError(
            problem("No example input.", got="compile(model, algorithm)", expected="the inputs of one step",
                    do="compile(model, algorithm, x), with x as in learner(x)")
        )  # fmt: skip
    _check_options(chosen, options)
    analysis = {
        "unroll_limit": unroll_limit, "max_slots": max_slots, "memory_budget": memory_budget, "control_flow": control_flow,
    }  # fmt: skip
    if isinstance(model, brainstate.nn.Module):
        if params is not _ABSENT or carry is not _ABSENT:
            raise UsageError(
                problem("params and carry belong to a plain function.", got=f"a module, {type(model).__name__}",
                        do="leave them out: a module holds its own")
            )  # fmt: skip
        learner = chosen(model, **options)
        compile_module(learner, example_inputs, batch_size=batch_size, seed=seed, vmap=vmap, **analysis)
        if verbose:
            learner.report.show(verbose)
        return ETraceVmap(learner) if vmap else learner
    return _function(model, chosen, example_inputs, params, carry, (batch_size, seed, vmap), analysis, options)


def _function(
    model: Any, algorithm: Any, example_inputs: tuple[Any, ...], params: Any, carry: Any, module_options: tuple[Any, ...],
    analysis: dict[str, Any], options: dict[str, Any],
) -> FunctionLearner:  # fmt: skip
    if not callable(model):
        raise UsageError(
            problem("This is no model.", got=type(model).__name__,
                    expected="a brainstate module, or a function (params, carry, x) -> (carry, out)")
        )  # fmt: skip
    if params is _ABSENT or carry is _ABSENT:
        raise UsageError(
            problem("A function needs its parameters and its carry.", got=f"compile({getattr(model, '__name__', 'cell')}, ...)",
                    expected="params=..., carry=...", do="pass both, as the function takes them")
        )  # fmt: skip
    if len(example_inputs) != 1:
        raise UsageError(
            problem("A function has one input.", got=f"{len(example_inputs)} example inputs", expected="one, which may be a tree",
                    do="pass a tuple of inputs as one")
        )  # fmt: skip
    if module_options != (None, None, False):
        raise UsageError(
            problem("batch_size, seed and vmap are for modules.", got=f"a function, {getattr(model, '__name__', model)}",
                    do="give params and carry their batch; map the function with jax.vmap")
        )  # fmt: skip
    rejected = set(_names(ETraceVjpAlgorithm.__init__)) & set(options)
    if rejected:
        raise UsageError(
            problem("These options are for modules.", got=sorted(rejected), do="for a function use update_window(..., full=True)")
        )  # fmt: skip
    return FunctionLearner(model, algorithm.rule(**options), params, carry, example_inputs[0], **analysis)


def _algorithm(algorithm: Any) -> Any:
    if isinstance(algorithm, ETraceConfig):
        return IODimVjpAlgorithm if algorithm.is_factorized else ParamDimVjpAlgorithm
    if isinstance(algorithm, str):
        if (found := ALGORITHMS.get(algorithm.lower())) is not None:
            return found
    elif isinstance(algorithm, type) and issubclass(algorithm, ETraceAlgorithm) and hasattr(algorithm, "rule"):
        return algorithm
    raise UsageError(
        problem("Unknown algorithm.", got=repr(algorithm), expected=f"one of {', '.join(ALGORITHMS)}, or an algorithm's class",
                do="pass one of these names (case does not matter), or a class such as braintrace.D_RTRL")
    )  # fmt: skip


def _check_options(algorithm: Any, options: dict[str, Any]) -> None:
    own = [n for n in _names(algorithm.__init__) if n not in ("self", "model", "settings")]
    known = [*own, *_names(ETraceVjpAlgorithm.__init__)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(
            problem(f"{algorithm.__name__} has no such option.", got=", ".join(unknown), expected=f"some of {', '.join(own)}",
                    do="look at the signature of braintrace.compile and of the algorithm")
        )  # fmt: skip


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
