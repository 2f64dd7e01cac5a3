"""Stage a function to one flat `Program`: every call is opened, control flow that carries gradients
is unfolded.

A call (`jit`, `closed_call`, `remat`, ...) is recognised by the sub-program it holds, never by its
name. A call with a derivative of its own (`custom_jvp`, `custom_vjp`) stays one equation, so that
evaluation uses that derivative.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Hashable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from .._compat import (
    CONTROL_FLOW,
    CUSTOM_DERIVATIVE,
    ClosedJaxpr,
    Literal,
    P,
    named,
    scan_counts,
    source_line,
    sub_jaxprs,
)
from .._errors import CompilationError, NotSupportedError
from ._constant import folded
from ._derivative import RULE, Derivative, pullback
from ._diagonal import diagonal_side, scaled
from ._elementwise import is_elementwise
from ._linear import LINEAR
from ._policy import ControlFlowPolicy, Unfolding
from ._program import Atom, Const, Equation, Program, Var
from ._stop_trace import mark_bent

# Operations whose derivative is finite whatever their operands are.
_HARMLESS = LINEAR | named("stop_gradient")
_KEPT_DERIVATIVES = 256
Avals = Sequence[jax.ShapeDtypeStruct]


def stage(
    function: Callable[..., Sequence[jax.Array]],
    avals: Avals,
    relevant: Sequence[bool],
    policy: ControlFlowPolicy,
    n_params: int | None = None,
) -> tuple[Program, list[Unfolding]]:
    """The program of `function(*avals)`, a function from arrays to a flat list of arrays, and what
    its control flow became.

    `relevant[k]` says whether gradients may flow through input k (parameters and hidden state):
    control flow that such an input reaches is unfolded as the policy says; any other control flow
    stays as it is. The first `n_params` inputs are the parameters.
    """
    closed = jax.make_jaxpr(function)(*avals)
    stager = _Stager(policy)
    inputs = [Var(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    stager.relevant.update(
        v for v, r in zip(inputs, relevant, strict=True) if r and v.differentiable
    )
    stager.trained.update(v for v in inputs[:n_params] if v in stager.relevant)
    stager.ready.update(inputs[: n_params or 0])
    outputs = stager.open(closed, inputs, "")
    return Program(inputs, stager.equations, outputs), stager.unfoldings


def inline(closed: ClosedJaxpr, undifferentiated: bool = False) -> Program:
    """The program of a sub-jaxpr, with every call in it opened and its control flow left as it
    stands; calls with a derivative of their own too, where the program is never differentiated.
    """
    stager = _Stager(undifferentiated=undifferentiated)
    inputs = [Var(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return Program(inputs, stager.equations, stager.open(closed, inputs, ""))


_derivatives: dict[Hashable, tuple[Equation, Derivative | None]] = {}


def derivative(equation: Equation) -> Derivative | None:
    """The derivative that a call brings along; None where it cannot be staged in reverse.

    Copies of an equation share their parameters and constants, and so the answer.
    """
    if RULE in equation.params:
        return equation.params[RULE]
    constants = tuple(id(v.value) if isinstance(v, Const) else None for v in equation.inputs)
    key = id(equation.params), constants
    if key not in _derivatives:
        try:
            closed, *numbers = pullback(equation)
            found = Derivative(inline(closed, undifferentiated=True), *numbers)
        except Exception:  # the user's rule refuses: nothing is known of it
            found = None
        if len(_derivatives) >= _KEPT_DERIVATIVES:
            _derivatives.clear()
        _derivatives[key] = equation, found  # the equation keeps what the key numbers alive
    return _derivatives[key][1]


def extend(
    equations: list[Equation], function: Callable[..., PyTree[jax.Array]], operands: Sequence[Atom]
) -> list[Atom]:
    """Append what `function` does to `operands` (its control flow left as it stands); return the
    results, flat.
    """
    return _Stager(equations=equations).apply(function, operands, "")


@dataclasses.dataclass
class _Stager:
    policy: ControlFlowPolicy = dataclasses.field(default_factory=ControlFlowPolicy)
    equations: list[Equation] = dataclasses.field(default_factory=list)
    relevant: set[Var] = dataclasses.field(default_factory=set)
    trained: set[Var] = dataclasses.field(default_factory=set)  # reached from a parameter
    unfoldings: list[Unfolding] = dataclasses.field(default_factory=list)
    undifferentiated: bool = False
    depth: int = 0  # of the control flow that is being unfolded
    ready: set[Atom] = dataclasses.field(default_factory=set)  # made of parameters and constants
    makers: dict[Var, Equation] = dataclasses.field(default_factory=dict)  # of those
    taken: Atom | None = None  # inside a branch: whether it is the one that is taken
    guarded: dict[Atom, Atom] = dataclasses.field(default_factory=dict)  # operands in this branch

    def open(self, closed: ClosedJaxpr, inputs: Sequence[Atom], source: str) -> list[Atom]:
        """Append the equations of `closed`, applied to `inputs`; return its outputs."""
        jaxpr = closed.jaxpr
        env: dict[object, Atom] = dict(zip(jaxpr.constvars, map(Const, closed.consts), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(v: object) -> Atom:
            return Const(v.val) if isinstance(v, Literal) else env[v]

        for eqn in jaxpr.eqns:
            outputs = [Var(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
            operands, line = [read(v) for v in eqn.invars], source_line(eqn) or source
            results = self._add(Equation(eqn.primitive, operands, outputs, eqn.params, line))
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def apply(
        self, function: Callable[..., PyTree[jax.Array]], operands: Sequence[Atom], source: str
    ) -> list[Atom]:
        """Append what `function` does to `operands`."""
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in operands]
        return self.open(jax.make_jaxpr(function)(*avals), operands, source)

    def _add(self, e: Equation) -> Sequence[Atom]:
        """Append an equation, or what it comes to; return its results."""
        subs = sub_jaxprs(e.params)
        if e.primitive in CONTROL_FLOW:
            if any(v in self.relevant for v in e.inputs):
                return self._control_flow(e)
        elif (
            len(subs) == 1
            and (self.undifferentiated or e.primitive not in CUSTOM_DERIVATIVE)
            and [tuple(v.aval.shape) for v in subs[0].jaxpr.invars] == [v.shape for v in e.inputs]
        ):
            return self.open(subs[0], e.inputs, e.source)
        return self._emit(e)

    def _emit(self, e: Equation) -> Sequence[Atom]:
        if e.primitive is P.pad_p and isinstance(e.inputs[1], Var):
            return self.apply(functools.partial(_pad, **e.params), e.inputs, e.source)
        if e.primitive is P.dot_general_p:
            side = diagonal_side(e.inputs, e.params, self.makers)
            if side is not None:
                scale = functools.partial(scaled, side, e.params, e.outputs[0].dtype)
                return self.apply(scale, e.inputs, e.source)
        if self.taken is not None and e.primitive not in _HARMLESS:
            e.inputs = [self._guard(v, e.source) for v in e.inputs]
        if (known := folded(e)) is not None:
            return known
        # Each element of an elementwise equation's result has operands of its own.
        for k, v in enumerate(e.inputs):
            shape = e.outputs[0].shape if e.outputs else v.shape
            if v.shape != shape and (v.shape or v.differentiable) and is_elementwise(e):
                spread = functools.partial(jax.numpy.broadcast_to, shape=shape)
                [e.inputs[k]] = self.apply(spread, [v], e.source)
        if sub_jaxprs(e.params):
            self._mark_bent(e)
        if all(isinstance(v, Const) or v in self.ready for v in e.inputs):
            self.ready.update(e.outputs)
            self.makers.update(dict.fromkeys(e.outputs, e))
        for reached in (self.relevant, self.trained):
            if any(v in reached for v in e.inputs):
                reached.update(v for v in e.outputs if v.differentiable)
        self.equations.append(e)
        return e.outputs

    def _mark_bent(self, call: Equation) -> None:
        """Keep traces out of a call where its own derivative, or one inside it, is not linear."""
        relevant = [k for k, v in enumerate(call.inputs) if v in self.relevant]
        bent = _bent(call) if relevant else ()
        for k in relevant:
            if k in bent:
                mark = mark_bent(call.inputs[k], call)
                self.equations.append(mark)
                [call.inputs[k]] = mark.outputs

    def _guard(self, v: Atom, source: str) -> Atom:
        """`v` where this branch is taken, elsewhere a harmless number that passes no derivative.

        A branch that is not taken may be undefined there, and NaN times a zero cotangent is NaN.
        What parameters alone make is left as it is where the branch depends on more than they do.
        """
        ready = v in self.ready and self.taken not in self.ready
        if self.taken is None or not v.differentiable or ready:
            return v
        if v not in self.guarded:
            select = lambda taken, v: jax.lax.select_n(taken, jax.numpy.full_like(v, 0.5), v)
            [self.guarded[v]] = self.apply(select, [self.taken, v], source)
        return self.guarded[v]

    # Control flow
    # ----------------------------------------------------------------------------------------------

    def _control_flow(self, e: Equation) -> Sequence[Atom]:
        policy, limit = self.policy, self.policy.fixpoint_iteration_limit
        if self.depth >= limit:
            raise CompilationError(
                "Control flow in the step nests too deeply.",
                got=f"more than {self.depth} levels",
                expected=f"at most {limit} (fixpoint_iteration_limit)",
                do="pass control_flow=ControlFlowPolicy(fixpoint_iteration_limit=...) to compile",
                at=e.source,
            )
        if e.primitive is P.while_p:
            raise NotSupportedError(
                "A while loop in the step touches parameters or hidden state, and its "
                "number of turns is not static.",
                expected="a loop of static length (lax.scan, or fori_loop with constant "
                "bounds), which is unrolled",
                do="give the loop constant bounds, or move it out of the step",
                at=e.source,
            )
        if e.primitive is P.cond_p:
            unfold, length = self._cond, len(e.params["branches"])
            unfolds = policy.cond == "convert"
        else:
            unfold, length = self._scan, e.params["length"]
            unfolds = policy.unrolls(length)
        self.unfoldings.append(Unfolding(e.primitive.name, length, not unfolds, e.source))
        self.depth += 1
        try:
            return unfold(e) if unfolds else self._opaque(e, length)
        finally:
            self.depth -= 1

    def _opaque(self, e: Equation, length: int) -> Sequence[Atom]:
        """The equation as it stands, where the policy allows it: to the analysis it mixes whatever
        enters it.
        """
        refuses = self.policy.etp_in_control_flow == "error"
        if refuses and e.primitive is P.scan_p:
            raise NotSupportedError(
                "A loop in the step touches parameters or hidden state and is too long to unroll.",
                got=f"{length} sub-steps",
                expected=f"at most {self.policy.scan_unroll_limit} (option unroll_limit)",
                do=f"pass unroll_limit={length} to compile, or make each sub-step a step of "
                "the model",
                at=e.source,
            )
        if refuses and any(v in self.trained for v in e.inputs):
            raise NotSupportedError(
                "A parameter is used inside a cond that the policy leaves opaque.",
                expected="cond='convert'",
                do="use cond='convert', or etp_in_control_flow='exclude' for its "
                "instantaneous gradient",
                at=e.source,
            )
        return self._emit(e)

    def _cond(self, e: Equation) -> list[Atom]:
        """Every branch is evaluated and the results are selected: each branch's paths are then
        ordinary ones.
        """
        index, *rest = e.inputs
        outer = self.taken, self.guarded
        branches = []
        for k, branch in enumerate(e.params["branches"]):
            within = [index] if outer[0] is None else [index, outer[0]]
            is_taken = lambda i, *outer, k=k: functools.reduce(jax.numpy.logical_and, outer, i == k)
            [taken] = self.apply(is_taken, within, e.source)
            self.taken, self.guarded = taken, {}
            branches.append(self.open(branch, rest, e.source))
            self.taken, self.guarded = outer
        results = []
        for cases in zip(*branches, strict=True):
            if all(c is cases[0] for c in cases):
                results.append(cases[0])
                continue
            select = lambda i, *c: jax.lax.select_n(_index(i, len(c)), *c)
            results += self.apply(select, [index, *cases], e.source)
        return results

    def _scan(self, e: Equation) -> list[Atom]:
        params = e.params
        length, (n_const, n_carry) = params["length"], scan_counts(params)
        consts, xs = e.inputs[:n_const], e.inputs[n_const + n_carry :]
        carry = e.inputs[n_const : n_const + n_carry]
        stacked: dict[int, list[Atom]] = {}
        for i in range(length)[::-1] if params["reverse"] else range(length):
            at_i = [self.apply(lambda x, i=i: x[i], [x], e.source)[0] for x in xs]
            out = self.open(params["jaxpr"], [*consts, *carry, *at_i], e.source)
            carry, stacked[i] = out[:n_carry], out[n_carry:]
        columns = zip(*(stacked[i] for i in range(length)), strict=True)
        stack = lambda *c: jax.numpy.stack(c)
        return [*carry, *(self.apply(stack, column, e.source)[0] for column in columns)]


def _index(i: jax.Array, n: int) -> jax.Array:
    return i.astype(bool) if n == 2 else jax.numpy.clip(i, 0, n - 1)


def _bent(call: Equation) -> Collection[int]:
    """The operands for which the derivative of a call is not seen to be linear."""
    every = range(len(call.inputs))
    if call.primitive in CUSTOM_DERIVATIVE:
        found = derivative(call)
        return every if found is None else found.bent
    inner = [e for program in sub_jaxprs(call.params) for e in inline(program).equations]
    return every if any(sub_jaxprs(e.params) and _bent(e) for e in inner) else ()


def _pad(
    x: jax.Array, value: jax.Array, padding_config: Sequence[tuple[int, int, int]]
) -> jax.Array:
    """`lax.pad` whose derivative for the value is defined where x has none."""
    padded = jax.lax.pad(x, np.zeros((), x.dtype), padding_config)
    outside = jax.lax.pad(np.zeros(x.shape, bool), np.ones((), bool), padding_config)
    return jax.numpy.where(outside, value, padded)
