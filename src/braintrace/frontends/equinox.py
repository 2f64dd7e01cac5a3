"""The front end for Equinox modules: the functional learner, with the module itself in place of the
parameters.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from ..cell import (
    IN_ORDER,
    MisfitError,
    UserStep,
    Values,
    is_swapped,
    plain_user_step,
    said_batch,
    shown,
    users_step,
)
from ..cell._user_step import check_takes
from ..core._domains import arrays
from ..core._errors import UsageError
from ..core.engine import Names, Rule
from ..learner import FunctionLearner, Shardings, packed

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
        flat, self._structure = jax.tree_util.tree_flatten_with_path(model)
        leaves = {k: v for k, (_, v) in enumerate(flat)}
        trained = [k for k, v in leaves.items() if _is_inexact(v)]
        if not trained:
            raise UsageError(
                "The module has no parameters to learn.",
                got=f"{type(model).__name__} without floating-point arrays",
                expected="an eqx.Module with weights",
            )
        self._static = {k: v for k, v in leaves.items() if not _is_array(v)}
        constants = [k for k in leaves if k not in trained and k not in self._static]
        self._arrays, self._rows = trained + constants, len(trained)
        self._paths = [jax.tree_util.keystr(path).removeprefix(".") for path, _ in flat]
        self._names = tuple(self._paths[k] for k in self._arrays)
        self._call, self._vmap, params = call, vmap, self._values(model)
        self._options = analysis
        super().__init__(self._cell, rule, params, carry, x, rows=self._rows, **analysis)
        self.function = self._step  # (model, carry, x) -> (carry, out), as the module is called

    def __reduce__(self) -> Any:
        model = self._with(self.cell.params.leaves)
        given = self._call, self.rule, self.initial, self.cell.x.shapes, self._vmap
        return packed(functools.partial(type(self), model, *given, **self._options))

    def _values(self, model: object) -> Values:
        """The arrays of a module, which must be like the one that was compiled."""
        leaves, structure = jax.tree.flatten(model)
        same = structure == self._structure
        changed = [k for k, v in self._static.items() if same and not _equal(leaves[k], v)]
        if not same or changed:
            raise UsageError(
                "The module is not like the one that was compiled.",
                got={self._paths[k]: leaves[k] for k in changed} or structure,
                expected={self._paths[k]: self._static[k] for k in changed} or self._structure,
                do="pass a module that differs in its arrays only, or compile again",
            )
        return Values(self._names, [leaves[k] for k in self._arrays])

    def _flat(self, params: PyTree) -> list[jax.Array]:
        return self.cell.params.flatten(self._values(params), "module")

    @property
    def _live(self) -> Sequence[bool]:
        flags = dict(zip(self._arrays, self._with_gradient, strict=False))
        return [flags.get(k, False) for k in range(len(self._paths))]

    def _cell(self, params: Values, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """The step as a pure function of the arrays."""
        return self._step(self._module(params), carry, x)

    def _module(self, params: Values) -> PyTree:
        """The module of the arrays. No gradient passes through constants."""
        constants = map(jax.lax.stop_gradient, params.leaves[self._rows :])
        return self._with([*params.leaves[: self._rows], *constants])

    def _with(self, arrays: Sequence[Any]) -> PyTree:
        """The module's tree with these in place of its arrays."""
        leaves = self._static | dict(zip(self._arrays, arrays, strict=True))
        return self._structure.unflatten([leaves[k] for k in range(len(leaves))])

    def shardings(
        self,
        mesh: Mesh,
        *,
        data: Names = None,
        model: Names = None,
        memory_budget: int | None = None,
    ) -> Shardings:
        """As for `FunctionLearner`; `params` is like the module, for `equinox.filter_shard`."""
        found = super().shardings(mesh, data=data, model=model, memory_budget=memory_budget)
        return dataclasses.replace(found, params=self._with(found.params.leaves))

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
        written = "write it for model(x, carry), or say call=lambda model, carry, x: ..."
        with users_step({"x": x, "carry": carry}, written):
            got = model(x, carry) if self._call is None else self._call(model, carry, x)
        expected = jax.tree.structure(carry)
        if jax.tree.structure(got) == expected:
            return got, got[0] if isinstance(model, eqx.nn.LSTMCell) else got
        pair = isinstance(got, tuple) and len(got) == 2
        swapped = pair and is_swapped(carry, got)
        if pair and not swapped and jax.tree.structure(got[0]) == expected:
            return got
        raise MisfitError(
            "The module returns neither a carry nor a pair.",
            got=shown(got),
            expected=f"the new carry, {shown(carry)}, or (carry, out)",
            do=IN_ORDER if swapped else "adapt it with call=lambda model, carry, x: (carry, out)",
        )


def compile_model(
    model: eqx.Module,
    rule: Rule,
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> EquinoxLearner:
    """A learner of `model`; `given` holds `carry`, and may hold `call`, `vmap` and what is said
    about the batch.
    """
    if "carry" not in given:
        raise UsageError(
            "The carry is missing.",
            got=f"compile({type(model).__name__}, ...)",
            expected="carry=...",
            do="pass the state before the first step, batch first: jnp.zeros((batch, "
            "cell.hidden_size)), say",
        )
    call = given.get("call")
    if call is None:
        _check_call(model)
    else:
        check_takes("call", call, 3, "(model, carry, x)")
    carry, x = arrays("carry", given["carry"]), arrays("example input", inputs[0])
    batch, vmap = said_batch(given, carry, x), given.get("vmap", False)
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


def _is_array(v: object) -> bool:
    """Whether it is an array, or the shape of one."""
    return eqx.is_array(v) or isinstance(v, jax.ShapeDtypeStruct)


def _is_inexact(v: Any) -> bool:
    return _is_array(v) and jnp.issubdtype(v.dtype, jnp.inexact)


def _equal(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))
