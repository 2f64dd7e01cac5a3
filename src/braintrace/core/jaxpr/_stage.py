"""Stage a function to one flat `Program`: every call is opened, control flow that carries gradients
is unfolded.

A call (`jit`, `closed_call`, `remat`, ...) is recognised by the sub-program it holds, never by its
name. A call with a derivative of its own (`custom_jvp`, `custom_vjp`) stays one equation, so that
evaluation uses that derivative.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .._compat import (
    CONTROL_FLOW,
    CUSTOM_DERIVATIVE,
    ClosedJaxpr,
    Literal,
    P,
    bind,
    is_differentiable,
    is_key,
    is_traced,
    scan_counts,
    source_line,
    sub_jaxprs,
)
from .._errors import CompilationError, NotSupportedError, problem
from ._elementwise import is_elementwise
from ._policy import ControlFlowPolicy, Unfolding
from ._program import Atom, Const, Equation, Program, Var

_FOLD_LIMIT = 1 << 22  # elements; larger integer constants are left to run time


def stage(
    function: Callable[..., Sequence[Any]],
    avals: Sequence[Any],
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
    outputs = stager.open(closed, inputs, "")
    return Program(inputs, stager.equations, outputs), stager.unfoldings


def inline(closed: ClosedJaxpr) -> Program:
    """The program of a sub-jaxpr, with every call in it opened and its control flow left as it
    stands.
    """
    stager = _Stager()
    inputs = [Var(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return Program(inputs, stager.equations, stager.open(closed, inputs, ""))


def extend(
    equations: list[Equation], function: Callable[..., Any], operands: Sequence[Atom]
) -> list[Atom]:
    """Append what `function` does to `operands` (its control flow left as it stands); return the
    results, flat.
    """
    return _Stager(equations=equations).apply(function, operands, "")


def sort_equations(equations: Sequence[Equation]) -> list[Equation]:
    """The equations in an order in which each comes after those that it reads, otherwise as
    given.
    """
    maker = {v: e for e in equations for v in e.outputs}
    done: dict[Equation, None] = {}
    for first in equations:
        pending = [first]
        while pending:
            e = pending[-1]
            missing = [m for v in e.inputs if (m := maker.get(v)) is not None and m not in done]  # type: ignore[arg-type]
            if missing:
                pending += missing
            else:
                done[pending.pop()] = None
    return list(done)


@dataclasses.dataclass
class _Stager:
    policy: ControlFlowPolicy = dataclasses.field(default_factory=ControlFlowPolicy)
    equations: list[Equation] = dataclasses.field(default_factory=list)
    relevant: set[Var] = dataclasses.field(default_factory=set)
    trained: set[Var] = dataclasses.field(default_factory=set)  # reached from a parameter
    unfoldings: list[Unfolding] = dataclasses.field(default_factory=list)
    depth: int = 0  # of the control flow that is being unfolded

    def open(self, closed: ClosedJaxpr, inputs: Sequence[Atom], source: str) -> list[Atom]:
        """Append the equations of `closed`, applied to `inputs`; return its outputs."""
        jaxpr = closed.jaxpr
        env: dict[Any, Atom] = dict(zip(jaxpr.constvars, map(Const, closed.consts), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(v: Any) -> Atom:
            return Const(v.val) if isinstance(v, Literal) else env[v]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            avals = [v.aval for v in eqn.outvars]
            results = self._equation(eqn, operands, avals, source_line(eqn) or source)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def apply(
        self, function: Callable[..., Any], operands: Sequence[Atom], source: str
    ) -> list[Atom]:
        """Append what `function` does to `operands`."""
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in operands]
        return self.open(jax.make_jaxpr(function)(*avals), operands, source)

    def _equation(
        self, eqn: Any, operands: list[Atom], avals: list[Any], source: str
    ) -> list[Atom]:
        subs = sub_jaxprs(eqn.params)
        relevant = any(v in self.relevant for v in operands)
        if subs and eqn.primitive in CONTROL_FLOW:
            if not relevant:
                return self._emit(eqn.primitive, operands, avals, eqn.params, source)
            return self._control_flow(eqn, operands, avals, source)
        if (
            len(subs) == 1
            and eqn.primitive not in CUSTOM_DERIVATIVE
            and _is_call(subs[0], operands)
        ):
            return self.open(subs[0], operands, source)
        return self._emit(eqn.primitive, operands, avals, eqn.params, source)

    def _emit(
        self, primitive: Any, operands: list[Atom], avals: list[Any], params: dict, source: str
    ) -> list[Atom]:
        outputs = [Var(a.shape, a.dtype) for a in avals]
        equation = Equation(primitive, operands, outputs, params, source)
        if (folded := _fold(equation)) is not None:
            return folded
        if (
            outputs
            and any(v.shape != outputs[0].shape for v in operands)
            and is_elementwise(equation)
        ):
            self._broadcast_operands(equation)
        for reached in (self.relevant, self.trained):
            if any(v in reached for v in operands):
                reached.update(v for v in outputs if v.differentiable)
        self.equations.append(equation)
        return list(outputs)

    def _broadcast_operands(self, equation: Equation) -> None:
        """Give the operands of an elementwise equation the shape of its result, so that each
        element has its own.
        """
        shape = equation.outputs[0].shape
        for k, v in enumerate(equation.inputs):
            if v.shape != shape and (v.shape != () or (isinstance(v, Var) and v.differentiable)):
                [equation.inputs[k]] = self.apply(
                    lambda s: jax.numpy.broadcast_to(s, shape), [v], equation.source
                )

    # Control flow
    # ----------------------------------------------------------------------------------------------

    def _control_flow(
        self, eqn: Any, operands: list[Atom], avals: list[Any], source: str
    ) -> list[Atom]:
        policy = self.policy
        if self.depth >= policy.fixpoint_iteration_limit:
            raise CompilationError(
                problem(
                    "Control flow in the step nests too deeply.",
                    got=f"more than {self.depth} levels",
                    expected=f"at most {policy.fixpoint_iteration_limit} "
                    "(fixpoint_iteration_limit)",
                    do="pass control_flow=ControlFlowPolicy(fixpoint_iteration_limit=...) to "
                    "compile",
                    at=source,
                )
            )
        self.depth += 1
        try:
            if eqn.primitive is P.cond_p:
                unfolds, length = policy.cond == "convert", len(eqn.params["branches"])
                unfold = lambda: self._cond(eqn, operands, source)
            elif eqn.primitive is P.scan_p:
                unfolds, length = policy.unrolls(eqn.params["length"]), eqn.params["length"]
                unfold = lambda: self._scan(eqn, operands, avals, source)
            else:
                raise NotSupportedError(
                    problem(
                        "A while loop in the step touches parameters or hidden state, and its "
                        "number of turns is not static.",
                        expected="a loop of static length (lax.scan, or fori_loop with constant "
                        "bounds), which is unrolled",
                        do="give the loop constant bounds, or move it out of the step",
                        at=source,
                    )
                )
            self.unfoldings.append(Unfolding(eqn.primitive.name, length, not unfolds, source))
            return unfold() if unfolds else self._opaque(eqn, operands, avals, source, length)
        finally:
            self.depth -= 1

    def _opaque(
        self, eqn: Any, operands: list[Atom], avals: list[Any], source: str, length: int
    ) -> list[Atom]:
        """The equation as it stands, where the policy allows it: to the analysis it mixes whatever
        enters it.
        """
        weights = any(v in self.trained for v in operands)
        if eqn.primitive is P.scan_p and self.policy.etp_in_control_flow == "error":
            raise NotSupportedError(
                problem(
                    "A loop in the step touches parameters or hidden state and is too long to "
                    "unroll.",
                    got=f"{length} sub-steps",
                    expected=f"at most {self.policy.scan_unroll_limit} (option unroll_limit)",
                    do=f"pass unroll_limit={length} to compile, or make each sub-step a step of "
                    "the model",
                    at=source,
                )
            )
        if weights and self.policy.etp_in_control_flow == "error":
            raise NotSupportedError(
                problem(
                    "A parameter is used inside a cond that the policy leaves opaque.",
                    expected="cond='convert'",
                    do="use cond='convert', or etp_in_control_flow='exclude' for its "
                    "instantaneous gradient",
                    at=source,
                )
            )
        return self._emit(eqn.primitive, operands, avals, eqn.params, source)

    def _cond(self, eqn: Any, operands: list[Atom], source: str) -> list[Atom]:
        """Every branch is evaluated and the results are selected: each branch's paths are then
        ordinary ones.
        """
        index, *rest = operands
        branches = [self.open(b, rest, source) for b in eqn.params["branches"]]
        results = []
        for cases in zip(*branches, strict=True):
            if all(c is cases[0] for c in cases):
                results.append(cases[0])
                continue
            select = lambda i, *c: jax.lax.select_n(_index(i, len(c)), *c)
            results += self.apply(select, [index, *cases], source)
        return results

    def _scan(self, eqn: Any, operands: list[Atom], avals: list[Any], source: str) -> list[Atom]:
        params = eqn.params
        length, (n_const, n_carry) = params["length"], scan_counts(params)
        consts, carry, xs = (
            operands[:n_const],
            operands[n_const : n_const + n_carry],
            operands[n_const + n_carry :],
        )
        stacked: list[list[Atom]] = [[] for _ in avals[n_carry:]]
        order = range(length - 1, -1, -1) if params["reverse"] else range(length)
        for i in order:
            at_i = [self.apply(lambda x, i=i: x[i], [x], source)[0] for x in xs]
            out = self.open(params["jaxpr"], [*consts, *carry, *at_i], source)
            carry = out[:n_carry]
            for column, y in zip(stacked, out[n_carry:], strict=True):
                column.append(y)
        for column in stacked:
            if params["reverse"]:
                column.reverse()
        ys = [
            self.apply(lambda *c: jax.numpy.stack(c), column, source)[0]
            for column in stacked
            if column
        ]
        return [*carry, *ys]


def _is_call(closed: ClosedJaxpr, operands: list[Atom]) -> bool:
    return [tuple(v.aval.shape) for v in closed.jaxpr.invars] == [v.shape for v in operands]


def _index(i: Any, n: int) -> Any:
    return i.astype(bool) if n == 2 else jax.numpy.clip(i, 0, n - 1)


def _fold(equation: Equation) -> list[Atom] | None:
    """Results of index arithmetic on constants, so that constant indices are seen as such."""
    known = all(isinstance(v, Const) and not is_traced(v.value) for v in equation.inputs)
    if not known or sub_jaxprs(equation.params):
        return None
    small = all(v.size <= _FOLD_LIMIT for v in equation.outputs)
    if not small or any(
        is_differentiable(v.dtype) or is_key(v.dtype) for v in (*equation.inputs, *equation.outputs)
    ):
        return None
    with jax.ensure_compile_time_eval():
        results = bind(equation.primitive, [v.value for v in equation.inputs], equation.params)  # type: ignore[union-attr]
    return [Const(np.asarray(r)) for r in results]
