"""`compile`: one call from a model to a learner."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

from jaxtyping import PyTree

from .cell import MisfitError, Patterns, first_steps, shown, whole_sequence
from .compat import ETraceConfig
from .core._domains import flag, known
from .core._errors import UsageError
from .core.jaxpr import ControlFlowPolicy
from .frontends import FRONT_ENDS, FrontEnd, front_end_of
from .rules import Algorithm, algorithm_of

_ABSENT: Any = object()

#: Arguments of `compile` that some front ends take, and those that the analysis takes.
_OF_MODELS = {option for front_end in FRONT_ENDS for option in front_end.options}
_ANALYSIS = "unroll_limit", "max_slots", "memory_budget", "control_flow", "trainable", "exclude"

#: Options of every class of brainstate learners, beside those of its algorithm.
_OF_CLASSES = ("vjp_method", "name", "fast_solve", "chunked_trace", "snap_max_jacobian_elements")


def compile(
    model: object,
    algorithm: str | type | Algorithm | ETraceConfig,
    *example_inputs: PyTree,
    batch_size: int | None = _ABSENT,
    batch_axes: PyTree = _ABSENT,
    batch: None = _ABSENT,
    seed: int | None = _ABSENT,
    verbose: int = 0,
    vmap: bool = _ABSENT,
    axis_name: Hashable = _ABSENT,
    params: PyTree = _ABSENT,
    carry: PyTree = _ABSENT,
    wrt: Any = _ABSENT,
    call: Callable[..., PyTree] = _ABSENT,
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
        algorithm: a class such as `D_RTRL`, its name in any case, 'd_rtrl', an `Algorithm` of
            yours with its options, or an `ETraceConfig`.
        *example_inputs: the inputs of one step. Only shapes and dtypes count, so that trees of
            `jax.ShapeDtypeStruct` are enough; of a function's params and carry, and of an Equinox
            module's carry, they are too, but where a rule or a reset needs values. Later inputs may
            have another dtype where converting them keeps their values.
        batch_size: the number of samples. brainstate: the module's states are initialised with it
            (`init_state(batch_size=...)`), and the axis of each whose size follows it is the batch.
            Others: the size of axis 0 of the carry's arrays that have a batch; by default the size
            of axis 0 that they share.
        batch_axes: function, NNX, Equinox: where the batch is, as in `jax.vmap`: an axis for every
            array, or a pair (axes of the carry, axes of the input), each an axis, None (shared by
            the samples), or a tree of these. For NNX the first speaks of the given carry; hidden
            Variables have the batch on axis 0, or on the one axis that is said.
        batch: function, NNX, Equinox: None says that the model has no batch, whatever the sizes of
            its arrays.
        seed: brainstate: seed for initialising the states; brainstate's default key is as before
            afterwards.
        verbose: 1 prints the report, 2 also the compiler's warnings.
        vmap: whether the module is written for one sample and is to be mapped over axis 0 of the
            inputs. brainstate: its states are initialised for each sample, and its random states
            split. NNX, Equinox: the carry has the batch as axis 0, too.
        axis_name: brainstate, with vmap=True: what the model calls the axis of the samples, for
            `jax.lax.pmean` and the `axis_name` of layers such as `BatchNorm`.
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
    arguments = locals()  # before any other name is bound
    given = {k: v for k, v in arguments.items() if k in _OF_MODELS and v is not _ABSENT}
    analysis = {k: v for k, v in arguments.items() if k in _ANALYSIS}
    front_end = front_end_of(model)
    if isinstance(algorithm, Algorithm):
        algorithm, options = type(algorithm), algorithm.chosen(options)
    chosen = algorithm_of(algorithm)
    if isinstance(algorithm, ETraceConfig):
        options.setdefault("config", algorithm)
    if not isinstance(verbose, int) or verbose not in (0, 1, 2):
        raise UsageError("Invalid verbose.", got=repr(verbose), expected="0, 1 or 2")
    if "vmap" in given:
        flag("vmap", vmap)
    if not example_inputs:
        raise UsageError(
            "No example input.",
            got="compile(model, algorithm)",
            expected="the inputs of one step",
            do="compile(model, algorithm, x), with x as in learner(x)",
        )
    front_end.check(given, example_inputs)
    made: Any = chosen
    if of_brainstate := front_end.module == "brainstate":
        is_class = isinstance(algorithm, type) and algorithm is not chosen
        made = algorithm if is_class else front_end.load().class_of(chosen)
    _check_options(made, chosen.name, options, front_end)
    rule = functools.partial(made, **options) if of_brainstate else made(**options).rule()
    compile_model = functools.partial(front_end.load().compile_model, **analysis)
    try:
        learner = compile_model(model, rule, example_inputs, given)
    except MisfitError as error:
        if of_brainstate:  # which has looked for a remedy with the model's states as they were
            raise
        works = functools.partial(_works, compile_model, rule)
        if (remedy := _remedy(works, front_end, model, example_inputs, given)) is None:
            raise
        raise remedy from error
    if verbose:
        learner.report.show(verbose)
    return learner


def _works(compile_model: Callable[..., object], rule: Any, *arguments: Any) -> bool:
    """Whether (model, inputs, given) can be compiled."""
    model, *others = arguments
    with contextlib.suppress(Exception):  # whatever a model raises that was not meant so
        compile_model(model, rule, *others)
        return True
    return False


def _remedy(
    works: Callable[..., bool],
    front_end: FrontEnd,
    model: Any,
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
) -> UsageError | None:
    """What is wrong with a model that does not fit its example; each remedy has been tried."""
    first, mapped = first_steps(inputs), {**given, "vmap": True}
    can_map = "vmap" in front_end.options and not given.get("vmap")
    one_sample = can_map and works(model, inputs, mapped)
    if not one_sample and first is not None:
        if works(model, first, given):
            return whole_sequence(inputs, first)
        one_sample = can_map and works(model, first, mapped)
    if one_sample:
        return UsageError(
            "The module is written for one sample.",
            got=f"carry {shown(given.get('carry'))}, inputs {shown(inputs)}",
            expected="vmap=True, which maps it over axis 0 of both",
            do="pass vmap=True, and the inputs of one step",
        )
    if front_end.module != "function":
        return None
    orders = {
        "(params, x, carry)": lambda p, h, x: model(p, x, h),
        "(carry, params, x)": lambda p, h, x: model(h, p, x),
        "(carry, x, params)": lambda p, h, x: model(h, x, p),
        "(x, carry, params)": lambda p, h, x: model(x, h, p),
        "(x, params, carry)": lambda p, h, x: model(x, p, h),
    }
    swapped = {**given, "params": given["carry"], "carry": given["params"]}
    if works(model, inputs, swapped):
        return UsageError(
            "params and carry are in each other's place.",
            got=f"params {shown(given['params'])}, carry {shown(given['carry'])}",
            expected="the parameters as params, the state before the first step as carry",
            do="exchange them",
        )
    if order := next((o for o, cell in orders.items() if works(cell, inputs, given)), None):
        return UsageError(
            "The function takes its arguments in another order.",
            got=f"a function of {order}",
            expected="a function of (params, carry, x)",
            do=f"compile lambda params, carry, x: cell{order}",
        )
    return None


def _check_options(made: Any, name: str, options: dict[str, Any], front_end: FrontEnd) -> None:
    """The options are those of what `made` makes."""
    is_class = front_end.module == "brainstate"
    parameters = inspect.signature(made.__init__).parameters
    own = [n for n in parameters if n not in ("self", "model", "settings")]
    if not is_class and (rejected := sorted(set(_OF_CLASSES) & set(options))):
        raise UsageError(
            "These options are for brainstate modules.",
            got=", ".join(rejected),
            expected=f"none of them for {front_end.models}",
            do="leave them out: an NNX learner takes single steps, and windows in etrace_grad"
            if front_end.module == "nnx"
            else "leave them out; the multi-step form is learner.update_window(..., full=True)",
        )
    subject = getattr(made, "__name__", name) if is_class else name
    known(subject, options, own, (*_OF_CLASSES, *_ANALYSIS, *front_end.options))
