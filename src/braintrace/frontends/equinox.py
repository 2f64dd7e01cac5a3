"""The front end for Equinox modules: the functional learner, with the module itself in place of the
parameters.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import UserStep, Values, plain_user_step, said_batch
from ..core._errors import CompilationError, UsageError
from ..core.engine import Rule
from ..learner import FunctionLearner
from ..rules import Algorithm

_CARRY_NAMES = {"carry", "hidden", "hidden_state", "state", "h"}
_INPUT_NAMES = {"x", "xs", "input", "inputs"}


class EquinoxLearner(FunctionLearner):
    """An online learner of an Equinox module; made by `braintrace.compile`.

    Its methods are those of `FunctionLearner`, pure, with the module where these say `params`:

        state = learner.init(model, carry)
        state, out = learner(model, state, x)
        gradients, state, info = learner.etrace_grad(model, state, xs, ys, loss_fn=loss)

    Gradients have the module's structure, with None at every leaf that is no inexact array, as
    `eqx.filter_grad` gives them: optax takes them, and `eqx.apply_updates` what comes of it. An
    optimizer is initialised with `learner.trained(model)`, which is `eqx.filter(model,
    eqx.is_inexact_array)` without what is not trained. The methods work inside `eqx.filter_jit`,
    `eqx.filter_grad` and `jax.lax.scan`.

    Example:
        >>> import braintrace, equinox as eqx, jax, jax.numpy as jnp
        >>> cell, hidden = eqx.nn.GRUCell(3, 4, key=jax.random.key(0)), jnp.zeros((2, 4))
        >>> learner = braintrace.compile(cell, "d_rtrl", jnp.zeros((2, 3)), carry=hidden, vmap=True)
        >>> xs, ys = jnp.ones((10, 2, 3)), jnp.ones((10, 2, 4))
        >>> loss = lambda out, y: jnp.mean((out - y) ** 2)
        >>> gradients, state, info = learner.etrace_grad(
        ...     cell, learner.init(cell, hidden), xs, ys, loss_fn=loss
        ... )
        >>> gradients.weight_hh.shape, info.losses.shape
        ((12, 4), (10,))

    Other arrays of the module (integers, keys) are constants that are read at each call. What is
    not an array (activations, sizes, flags such as `inference`) is read when the module is
    compiled; if it differs at a call, that is an error.
    """

    __module__ = "braintrace"
    _called = "model"

    def __init__(
        self,
        model: eqx.Module,
        call: Callable[..., PyTree] | None,
        rule: Rule,
        carry: PyTree,
        x: PyTree,
        vmap: bool,
        **analysis: Any,
    ):
        leaves, self._structure = jax.tree.flatten(model)
        self._static = [None if eqx.is_array(v) else v for v in leaves]
        self._trained = tuple(k for k, v in enumerate(leaves) if eqx.is_inexact_array(v))
        self._constant = tuple(
            k for k, v in enumerate(leaves) if eqx.is_array(v) and k not in self._trained
        )
        if not self._trained:
            raise UsageError(
                "The module has no parameters to learn.",
                got=f"{type(model).__name__} without floating-point arrays",
                expected="an eqx.Module with weights",
            )
        flat, _ = jax.tree_util.tree_flatten_with_path(model)
        paths = [jax.tree_util.keystr(p).removeprefix(".") for p, _ in flat]
        self._names = tuple(paths[k] for k in (*self._trained, *self._constant))
        self._paths, self._call, self._vmap = paths, call, vmap
        super().__init__(
            self._cell, rule, self._values(model), carry, x, rows=len(self._trained), **analysis
        )
        self.function = self._step  # (model, carry, x) -> (carry, out), as the module is called

    def _values(self, model: object) -> Values:
        """The arrays of a module, which must be like the one that was compiled."""
        leaves, structure = jax.tree.flatten(model)
        same = structure == self._structure
        arrays = {*self._trained, *self._constant}
        static = [k for k in range(len(leaves)) if same and k not in arrays]
        changed = [k for k in static if not _equal(leaves[k], self._static[k])]
        if not same or changed:
            of = lambda values: {self._paths[k]: values[k] for k in changed}
            raise UsageError(
                "The module is not like the one that was compiled.",
                got=of(leaves) if same else structure,
                expected=of(self._static) if same else self._structure,
                do="pass a module that differs in its arrays only, or compile again",
            )
        return Values(self._names, [leaves[k] for k in (*self._trained, *self._constant)])

    def _flat(self, params: PyTree) -> list[jax.Array]:
        return self.cell.params.flatten(self._values(params), "module")

    @property
    def _live(self) -> Sequence[bool]:
        trained = dict(zip(self._trained, self._with_gradient, strict=True))
        return [trained.get(k, False) for k in range(len(self._static))]

    def _cell(self, params: Values, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """The step as a pure function of the arrays."""
        return self._step(self._module(params), carry, x)

    def _module(self, params: Values) -> PyTree:
        """The module of the arrays. No gradient passes through constants."""
        leaves, count = list(self._static), len(self._trained)
        for k, v in zip(self._trained, params.leaves[:count], strict=True):
            leaves[k] = v
        for k, v in zip(self._constant, params.leaves[count:], strict=True):
            leaves[k] = jax.lax.stop_gradient(v)
        return self._structure.unflatten(leaves)

    def user_step(self, step_fn: Callable[..., PyTree], has_aux: bool) -> UserStep:
        """`step_fn(model, call, *slices)` as a step on the module's arrays."""
        step = super().user_step(step_fn, has_aux)
        return lambda params, *rest: step(self._module(params), *rest)

    def stepped(self, step_fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """As `FunctionLearner.stepped`, on the module."""
        return plain_user_step(self.function, super().user_step(step_fn, has_aux=False))

    def _step(self, model: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        step = lambda carry, x: self._once(model, carry, x)
        return jax.vmap(step)(carry, x) if self._vmap else step(carry, x)

    def _once(self, model: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """One call: a module may return its carry alone, which is then its output, too."""
        got = model(x, carry) if self._call is None else self._call(model, carry, x)
        expected = jax.tree.structure(carry)
        if jax.tree.structure(got) == expected:
            return got, got[0] if isinstance(model, eqx.nn.LSTMCell) else got
        if isinstance(got, tuple) and len(got) == 2 and jax.tree.structure(got[0]) == expected:
            return got
        raise CompilationError(
            "The module returns neither a carry nor a pair.",
            got=jax.tree.structure(got),
            expected=f"the new carry, {expected}, or (carry, out)",
            do="adapt it with call=lambda model, carry, x: (new carry, out)",
        )


def compile_model(
    model: eqx.Module,
    algorithm: Callable[[], Algorithm],
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> EquinoxLearner:
    """A learner of `model`; `given` holds `carry`, and may hold `call`, `vmap` and what is said
    about the batch.
    """
    rule = algorithm().parts()
    if "carry" not in given:
        raise UsageError(
            "The carry is missing.",
            got=f"compile({type(model).__name__}, ...)",
            expected="carry=...",
            do="pass the state before the first step, batch first: jnp.zeros((batch, "
            "cell.hidden_size)), say",
        )
    if len(inputs) != 1:
        raise UsageError(
            "An Equinox module has one input.",
            got=f"{len(inputs)} example inputs",
            expected="one, which may be a tree",
            do="pass a tuple, and take it apart with call=lambda model, carry, x: model(*x, carry)",
        )
    call = given.get("call")
    if call is None:
        _check_call(model)
    carry, x = jax.tree.map(jnp.asarray, (given["carry"], inputs[0]))
    vmap = given.get("vmap", False)
    batch = said_batch(given, carry, x, vmap)
    return EquinoxLearner(model, call, rule, carry, x, vmap, batch=batch, **analysis)


def _check_call(model: object) -> None:
    """The default call is Equinox's own, `model(input, hidden)`; another order must be said."""
    if not callable(model):
        raise UsageError(
            "The module cannot be called.",
            got=type(model).__name__,
            expected="a module called as model(x, carry)",
            do="pass call=lambda model, carry, x: model.method(x, carry)",
        )
    names = list(inspect.signature(model).parameters)
    if len(names) >= 2 and names[0] in _CARRY_NAMES and names[1] in _INPUT_NAMES:
        raise UsageError(
            "The module takes its carry first.",
            got=f"{type(model).__name__}({names[0]}, {names[1]})",
            expected="Equinox's own order, model(input, carry), or call=",
            do="pass call=lambda model, carry, x: model(carry, x)",
        )


def _equal(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))
