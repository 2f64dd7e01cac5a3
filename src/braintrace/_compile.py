"""`compile`: one call from a model to a learner."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import brainstate

from .cell import Patterns
from .compat import ETraceConfig
from .core._errors import UsageError, problem
from .core.jaxpr import ControlFlowPolicy
from .frontends.brainstate import ETraceAlgorithm, ETraceVjpAlgorithm, ETraceVmap, compile_module
from .frontends.function import compile_function
from .rules import ALGORITHMS, IODimVjpAlgorithm, ParamDimVjpAlgorithm

_ABSENT: Any = object()

_KINDS = {
    "a brainstate module": ("batch_size", "seed", "vmap"),
    "a plain function": ("params", "carry"),
    "an NNX module": ("carry", "wrt", "vmap"),
    "an Equinox module": ("carry", "call", "vmap"),
}


def compile(
    model: brainstate.nn.Module | Callable[..., Any],
    algorithm: str | type[ETraceAlgorithm] | ETraceConfig,
    *example_inputs: Any,
    batch_size: int | None = _ABSENT,
    seed: int | None = _ABSENT,
    verbose: int = 0,
    vmap: bool = _ABSENT,
    params: Any = _ABSENT,
    carry: Any = _ABSENT,
    wrt: Any = _ABSENT,
    call: Callable[..., Any] = _ABSENT,
    unroll_limit: int = 64,
    max_slots: int = 16,
    memory_budget: int | None = None,
    control_flow: ControlFlowPolicy | None = None,
    trainable: Patterns = None,
    exclude: Patterns = None,
    **options: Any,
) -> Any:
    """Make a learner of a model.

    Args:
        model: what does one step: a brainstate module; a Flax NNX module, called as `model(carry,
            x) -> (carry, out)`, or as `model(x) -> out` if it keeps its state in Variables; an
            Equinox module, called as `model(x, carry)`, which returns the new carry or `(carry,
            out)`; or a function `(params, carry, x) -> (carry, out)`.
        algorithm: a class such as `D_RTRL`, its name in any case, 'd_rtrl', or an `ETraceConfig`.
        *example_inputs: the inputs of one step. Only shapes and dtypes count.
        batch_size: brainstate: the batch size with which the module's states are initialised
            (`init_state(batch_size=...)`).
        seed: brainstate: seed for initialising the states; brainstate's default key is as before
            afterwards.
        verbose: 1 prints the report, 2 also the compiler's warnings.
        vmap: whether the module is written for one sample and is to be mapped over axis 0 of the
            inputs. brainstate: its states are initialised for each sample, and its random states
            split. NNX, Equinox: the carry has the batch as axis 0, too.
        params: function: its parameters.
        carry: function, NNX, Equinox: the carry before the first step.
        wrt: NNX: the filter of the parameters, as for `nnx.Optimizer`; by default `nnx.Param`.
        call: Equinox: how the module is called, `call(model, carry, x)`; by default `model(x,
            carry)`.
        trainable: which parameters are trained: a glob over their paths ('cell.*'; a path stands
            for all below it), a predicate `(path, leaf) -> bool`, or a list of these. The others
            are frozen: no gradient, no trace, no cost.
        exclude: which parameters are kept out of the traces, said likewise. Their gradient is
            instantaneous: it sees their effect on the loss of the same step only.
        unroll_limit: the longest loop inside a step that is unrolled.
        max_slots: how many state variables one position may have.
        memory_budget: the most bytes that a sequence's gradient may need (see the learner's
            `memory_plan`): the default window is chosen to fit, and what cannot fit is refused with
            a proposal. None for no limit.
        control_flow: a `ControlFlowPolicy` for loops and branches inside a step, in place of
            `unroll_limit`.
        **options: the algorithm's own.

    Returns:
        For a brainstate module the algorithm itself, compiled: call it where you called the model.
        For an NNX module an `NNXLearner`, called likewise. For an Equinox module an
        `EquinoxLearner`, for a function a `FunctionLearner`.

    Raises:
        UsageError: for an unknown algorithm or option, missing inputs or a missing batch size.
        CompilationError: for a model that cannot be analysed. The states of a module that fails
            stay as initialised.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, "d_rtrl", jnp.zeros((4, 2)), batch_size=4)
    >>> learner(jnp.ones((4, 2))).shape
    (4, 1)
    >>> cell = lambda p, h, x: (0.5 * h + x @ p["w"], h)
    >>> params, h = {"w": jnp.ones((2, 3))}, jnp.zeros((4, 3))
    >>> learner = braintrace.compile(
    ...     cell, "pp_prop", jnp.ones((4, 2)), params=params, carry=h, decay_or_rank=0.5
    ... )
    >>> state, out = learner.update(params, learner.init(params, h), jnp.ones((4, 2)))
    >>> out.shape
    (4, 3)
    """
    chosen = _algorithm(algorithm)
    if isinstance(algorithm, ETraceConfig):
        options.setdefault("config", algorithm)
    if verbose not in (0, 1, 2):
        raise UsageError(problem("Unknown verbose.", got=repr(verbose), expected="0, 1 or 2"))
    if not example_inputs:
        raise UsageError(
            problem(
                "No example input.",
                got="compile(model, algorithm)",
                expected="the inputs of one step",
                do="compile(model, algorithm, x), with x as in learner(x)",
            )
        )
    _check_options(chosen, options)
    kind = _kind(model)
    asked = {
        "batch_size": batch_size,
        "seed": seed,
        "vmap": vmap,
        "params": params,
        "carry": carry,
        "wrt": wrt,
        "call": call,
    }
    given = {k: v for k, v in asked.items() if v is not _ABSENT}
    _check_given(kind, given, options)
    analysis = {
        "unroll_limit": unroll_limit,
        "max_slots": max_slots,
        "memory_budget": memory_budget,
        "trainable": trainable,
        "exclude": exclude,
        "control_flow": control_flow,
    }
    if kind == "a brainstate module":
        learner = chosen(model, **options)
        settings: dict[str, Any] = {
            "batch_size": None,
            "seed": None,
            "vmap": False,
            **given,
            **analysis,
        }
        compile_module(learner, example_inputs, **settings)
        if verbose:
            learner.report.show(verbose)
        return ETraceVmap(learner) if settings["vmap"] else learner
    learner = _DOORS[kind](model, chosen.rule(**options), example_inputs, given, **analysis)
    if verbose:
        learner.report.show(verbose)
    return learner


def _nnx(*arguments: Any, **analysis: Any) -> Any:
    from .frontends.nnx import compile_nnx  # only here: flax is imported for its own models alone

    return compile_nnx(*arguments, **analysis)


def _equinox(*arguments: Any, **analysis: Any) -> Any:
    from .frontends.equinox import compile_equinox  # as above

    return compile_equinox(*arguments, **analysis)


_DOORS: dict[str, Callable[..., Any]] = {
    "a plain function": compile_function,
    "an NNX module": _nnx,
    "an Equinox module": _equinox,
}


def _kind(model: Any) -> str:
    """What `model` is. A framework that is not imported made no model."""
    if isinstance(model, brainstate.nn.Module):
        return "a brainstate module"
    if _made_by(model, "flax.nnx"):
        return "an NNX module"
    if _made_by(model, "equinox"):
        return "an Equinox module"
    if _made_by(model, "flax.linen"):
        raise UsageError(
            problem(
                "A Linen module is called through its apply function.",
                got=type(model).__name__,
                expected="a function (params, carry, x) -> (carry, out)",
                do="compile(model.apply, algorithm, x, params=variables, carry=carry)",
            )
        )
    if isinstance(model, type) or not callable(model):
        raise UsageError(
            problem(
                "This is no model.",
                got=f"the class {model.__name__}"
                if isinstance(model, type)
                else type(model).__name__,
                expected="a brainstate, NNX or Equinox module, or a function (params, carry, x) "
                "-> (carry, out)",
                do="make an instance of the class" if isinstance(model, type) else "",
            )
        )
    return "a plain function"


def _made_by(model: Any, framework: str) -> bool:
    module = getattr(sys.modules.get(framework), "Module", None)
    return module is not None and isinstance(model, module)


def _check_given(kind: str, given: dict[str, Any], options: dict[str, Any]) -> None:
    wrong = [k for k in given if k not in _KINDS[kind]]
    others = {k for k, names in _KINDS.items() if set(wrong) <= set(names)}
    if wrong:
        raise UsageError(
            problem(
                f"{' and '.join(wrong)}: not for {kind}.",
                got=f"{', '.join(wrong)}, which belong to {' or '.join(others)}"
                if others
                else ", ".join(wrong),
                expected=f"of these options only {', '.join(_KINDS[kind])}",
                do="a function has its batch in params and carry; a module holds its own "
                "parameters",
            )
        )
    rejected = (
        sorted(set(_names(ETraceVjpAlgorithm.__init__)) & set(options))
        if kind != "a brainstate module"
        else []
    )
    if rejected:
        raise UsageError(
            problem(
                "These options are for brainstate modules.",
                got=", ".join(rejected),
                expected=f"none of them for {kind}",
                do="leave them out: an NNX learner takes single steps, and windows in etrace_grad"
                if kind == "an NNX module"
                else "leave them out; the multi-step form is learner.update_window(..., full=True)",
            )
        )


def _algorithm(algorithm: Any) -> Any:
    if isinstance(algorithm, ETraceConfig):
        return IODimVjpAlgorithm if algorithm.is_factorized else ParamDimVjpAlgorithm
    if isinstance(algorithm, str):
        if (found := ALGORITHMS.get(algorithm.lower())) is not None:
            return found
    elif (
        isinstance(algorithm, type)
        and issubclass(algorithm, ETraceAlgorithm)
        and hasattr(algorithm, "rule")
    ):
        return algorithm
    raise UsageError(
        problem(
            "Unknown algorithm.",
            got=repr(algorithm),
            expected=f"one of {', '.join(ALGORITHMS)}, or an algorithm's class",
            do="pass one of these names (case does not matter), or a class such as "
            "braintrace.D_RTRL",
        )
    )


def _check_options(algorithm: Any, options: dict[str, Any]) -> None:
    own = [n for n in _names(algorithm.__init__) if n not in ("self", "model", "settings")]
    known = [*own, *_names(ETraceVjpAlgorithm.__init__)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(
            problem(
                f"{algorithm.__name__} has no such option.",
                got=", ".join(unknown),
                expected=f"some of {', '.join(own)}",
                do="look at the signature of braintrace.compile and of the algorithm",
            )
        )


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
