"""A cell as data: its trees, its flat leaves, and its graph.

Complex leaves of the carry are held as a real and an imaginary leaf, so that a state group couples
real numbers only and non-holomorphic dynamics are covered. `Cell` translates between the user's
trees and the flat lists of the engine.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core._compat import is_differentiable, is_traced, is_wide_mode, on_no_mesh
from ..core._domains import check_elements, leaf, whole
from ..core._errors import CompilationError, UsageError
from ..core._precision import narrowed
from ..core.analysis import CellGraph, Signature, analyse, reach
from ..core.engine import Rule
from ..core.jaxpr import ControlFlowPolicy, Unfolding, Var, checked_policy, stage, stop_trace
from ._batch import BatchSpec, claim_of
from ._convert import unfit
from ._failing import IN_ORDER, MisfitError, is_swapped, shown, users_step
from ._select import Patterns, select

_PARTS: dict[str, Any] = {"": lambda v: v, ".real": jnp.real, ".imag": jnp.imag}
_WIDE = "float64", "complex128", "int64", "uint64"
CellFunction = Callable[[Any, Any, Any], tuple[PyTree, PyTree]]


@dataclasses.dataclass(frozen=True)
class Tree:
    """The structure of a pytree of arrays, with the path, shape and dtype of each leaf."""

    structure: Any
    names: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    #: The paths of the leaves that JAX has in its 64-bit mode alone.
    wide: tuple[str, ...] = ()
    #: The engine's leaves of a carry, where an algorithm holds some in a wider dtype.
    held: tuple[Var, ...] = ()

    @classmethod
    def of(cls, tree: PyTree, what: str = "value") -> "Tree":
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
        name = lambda path: f"{what}{jax.tree_util.keystr(path)}"
        leaves = tuple(leaf(name(p), v, values=False) for p, v in paths)
        names = tuple(jax.tree_util.keystr(p) or "value" for p, _ in paths)
        wide = [n for n, v in zip(names, leaves, strict=True) if str(v.dtype) in _WIDE]
        return cls(structure, names, leaves, tuple(wide) if is_wide_mode() else ())

    def inputs(self, tree: PyTree, what: str, *, lead: tuple[int, ...] = ()) -> list[jax.Array]:
        """As `flatten`, for what a user hands in at each step: a leaf of another dtype is converted
        where that keeps its values.
        """
        return self.flatten(tree, what, lead=lead, unfit=unfit)

    def flatten(
        self,
        tree: PyTree,
        what: str,
        *,
        lead: tuple[int, ...] = (),
        unfit: Callable[[Any, Any], str | None] | None = None,
    ) -> list[jax.Array]:
        """The leaves of `tree`, checked against this structure; `lead` are axes in front of each
        leaf's shape. `unfit(leaf, compiled dtype)`: None, or what to say of its dtype; by default
        its kind must be the compiled one.
        """
        if self.wide and not is_wide_mode():
            raise UsageError(
                "JAX's 64-bit mode was on when the learner was compiled, and is off now.",
                got="jax_enable_x64=False",
                expected=f"jax_enable_x64=True: {self.wide[0]} of the {what} has 64 bits",
                do="jax.config.update('jax_enable_x64', True), after the imports (brainstate turns "
                "it off); or compile again with values of 32 bits",
            )
        leaves, structure = jax.tree.flatten(tree)
        if structure != self.structure:
            raise UsageError(
                f"The {what} does not have the compiled structure.",
                got=structure,
                expected=self.structure,
                do=f"pass a {what} like the one given to compile, or compile again",
            )
        for name, value, expected in zip(self.names, leaves, self.leaves, strict=True):
            found = value if isinstance(value, jax.Array) else leaf(f"{what} at {name}", value)
            shape = found.shape
            if shape != (*lead, *expected.shape):
                raise UsageError(
                    f"The {what} has a wrong shape at {name}.",
                    got=f"shape {shape}",
                    expected=f"shape {(*lead, *expected.shape)}",
                    do="pass the shape that was compiled, or compile again",
                )
            if (why := (unfit or _other_kind)(value, expected.dtype)) is not None:
                raise UsageError(
                    f"The {what} has a wrong dtype at {name}.",
                    got=f"{found.dtype}{why}",
                    expected=expected.dtype,
                    do="convert it, or compile again with an example of this dtype",
                )
        of_arrays = lambda v, dtype: isinstance(v, (jax.Array, np.ndarray)) and v.dtype == dtype
        return [
            v if of_arrays(v, e.dtype) else jnp.asarray(v, e.dtype)
            for v, e in zip(leaves, self.leaves, strict=True)
        ]

    def concrete(self, tree: PyTree) -> list[jax.Array] | None:
        """The leaves of `tree` when all are numbers, else None."""
        leaves = jax.tree.leaves(tree)
        known = not any(isinstance(v, jax.ShapeDtypeStruct) or is_traced(v) for v in leaves)
        return [jnp.asarray(v) for v in leaves] if known else None

    @property
    def parts(self) -> list[tuple[int, str]]:
        """For each leaf that the engine has of a carry, the number of the user's leaf and which
        part of it it is: '.real' or '.imag' of a complex one, else ''.
        """
        of = lambda leaf: (".real", ".imag") if _kind(leaf.dtype) == "complexfloating" else ("",)
        return [(k, part) for k, leaf in enumerate(self.leaves) for part in of(leaf)]

    def apart(self, carry: PyTree) -> list[jax.Array]:
        """The engine's leaves of a carry."""
        leaves = self.flatten(carry, "carry")
        flat = [_PARTS[part](leaves[k]) for k, part in self.parts]
        return narrowed(flat, list(self.held)) if self.held else flat

    def together(self, flat: Sequence[jax.Array]) -> PyTree:
        """The carry of the engine's leaves."""
        rest, wholes = iter(flat), [part for _, part in self.parts if part != ".imag"]
        leaf = lambda part: jax.lax.complex(next(rest), next(rest)) if part else next(rest)
        return self.unflatten(narrowed([leaf(part) for part in wholes], list(self.leaves)))

    def unflatten(self, leaves: Sequence[Any]) -> PyTree:
        return jax.tree.unflatten(self.structure, list(leaves))

    @property
    def shapes(self) -> PyTree:
        """The tree of shapes and dtypes."""
        return self.unflatten(self.leaves)


def _other_kind(value: Any, wanted: Any) -> str | None:
    return None if _kind(leaf("value", value).dtype) == _kind(wanted) else ""


def _kind(dtype: Any) -> str:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "key"
    for kind in (jnp.floating, jnp.complexfloating, jnp.integer):
        if jnp.issubdtype(dtype, kind):
            return kind.__name__
    return str(dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """An analysed cell with its trees."""

    graph: CellGraph
    params: Tree
    carry: Tree
    x: Tree
    out: Tree
    rule: Rule | None = None  # with what it reads from the model put in
    unfoldings: tuple[Unfolding, ...] = ()  # what became of the control flow in its step
    plain: "Cell | None" = None  # the cell as the model defines it, where the algorithm edits it

    @functools.cached_property
    def influenced(self) -> tuple[int, ...]:
        """The hidden leaves that a parameter reaches, at its own step or at a later one."""
        graph, found = self.graph, set[Var]()
        start = set(graph.params)
        while not start <= found:
            found = reach([*graph.prelude, *graph.step], start | found)
            pairs = zip(graph.carry, graph.new_carry, strict=True)
            start = {old for old, new in pairs if new in found}
        return tuple(k for k in graph.hidden if graph.carry[k] in found)

    @property
    def leaf_numbers(self) -> list[int]:
        """For each leaf of the engine's carry, the number of the user's leaf that it is (a part
        of).
        """
        return [k for k, _ in self.carry.parts]


def compile_cell(
    cell: CellFunction,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    *,
    unroll_limit: int = 64,
    max_slots: int = 16,
    batch: BatchSpec | None = None,
    rule: Rule | None = None,
    control_flow: ControlFlowPolicy | None = None,
    rows: int | None = None,
    trainable: Patterns = None,
    exclude: Patterns = None,
    multi_step: bool = False,
) -> Cell:
    """Stage and analyse `cell` at the shapes of `params`, `carry` and `x`.

    `control_flow` says what becomes of loops and branches; without it, loops of at most
    `unroll_limit` sub-steps are unrolled.

    `batch` is what is said about the batch; by default its size is that of axis 0 that the arrays
    of the carry share. `rule` is the algorithm, which may edit the program. The certificate
    speaks of the first `rows` parameters: what a model merely holds comes behind them. `trainable`
    says which of these are trained, and `exclude` which are kept out of the traces. With
    `multi_step` a state that no later step reads but through products has a trace as well: BPTT
    inside a window goes through them to the window's entry.
    """
    max_slots = whole("max_slots", max_slots)
    unroll_limit = whole("unroll_limit", unroll_limit, least=0)
    checked_policy(control_flow)
    p, c, i = Tree.of(params, "params"), Tree.of(carry, "carry"), Tree.of(x, "example input")
    for tree, what in ((p, "params"), (c, "carry"), (i, "example input")):
        for name, value in zip(tree.names, tree.leaves, strict=True):
            if tree is i or is_differentiable(value.dtype):  # not what a model merely holds
                check_elements(f"{what} at {name}", value.shape)
    n_params, n_carry = len(p.leaves), len(c.parts)
    out_tree: list[Tree] = []
    frozen, untraced = select(p.names[:rows], p.leaves[:rows], trainable, exclude)

    def admitted(k: int, value: jax.Array) -> jax.Array:
        if k in frozen:
            return jax.lax.stop_gradient(value)
        return stop_trace(value) if k in untraced else value

    def flat(*leaves: jax.Array) -> list[jax.Array]:
        with users_step({"carry": carry, "x": x}, "write it as cell(params, carry, x)"):
            got = cell(
                p.unflatten([admitted(k, v) for k, v in enumerate(leaves[:n_params])]),
                c.together(leaves[n_params : n_params + n_carry]),
                i.unflatten(leaves[n_params + n_carry :]),
            )
        new, out = _checked(c, got)
        out_tree.append(Tree.of(out, "output"))
        return [*c.apart(new), *jax.tree.leaves(out)]

    parts = jax.eval_shape(lambda *leaves: c.apart(c.unflatten(leaves)), *c.leaves)
    relevant = [True] * (n_params + n_carry) + [False] * len(i.leaves)
    policy = control_flow or ControlFlowPolicy(scan_unroll_limit=unroll_limit, scan_descent="off")
    inputs = [*p.leaves, *parts, *i.leaves]
    with on_no_mesh():
        program, unfoldings = stage(flat, inputs, relevant, policy, n_params)
    names = tuple(c.names[k] + part for k, part in c.parts)
    claim = claim_of(batch, carry, x, [k for k, _ in c.parts])
    multi_step = multi_step or (rule is not None and rule.traces_all_state)
    signature = Signature(p.names, names, claim, frozen=frozen, multi_step=multi_step)
    graph = analyse(program, signature, max_slots)
    plain = Cell(_with_own_equations(graph), p, c, i, out_tree[-1])
    if rule is not None:
        rule = rule.resolve(graph, p.concrete(params), i.concrete(x))
        graph = rule.apply(graph, signature, max_slots)
        c = dataclasses.replace(c, held=tuple(graph.carry[:n_carry]))
    graph = dataclasses.replace(graph, parameters=graph.parameters[:rows])
    return Cell(graph, p, c, i, out_tree[-1], rule, tuple(unfoldings), plain)


def _with_own_equations(graph: CellGraph) -> CellGraph:
    """The graph, whose step stays the model's when an algorithm edits its equations in place."""
    own = lambda equations: [dataclasses.replace(e, inputs=list(e.inputs)) for e in equations]
    return dataclasses.replace(graph, prelude=own(graph.prelude), step=own(graph.step))


def _checked(expected: Tree, got: Any) -> tuple[PyTree, PyTree]:
    """What a cell returned: a pair, with a carry that is like the old one, leaf by leaf."""
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        found = f"{len(got)} values" if isinstance(got, (tuple, list)) else shown(got)
        raise CompilationError(
            "The cell does not return a pair.",
            got=found,
            expected="(carry, out)",
            do="write it as cell(params, carry, x) -> (carry, out); out may be None",
        )
    new, out = got
    found = Tree.of(new, "carry that the step returns")
    swapped = is_swapped(expected.unflatten(expected.leaves), got)
    if found.structure != expected.structure:
        raise MisfitError(
            "The step returns a carry of another structure.",
            got=found.structure,
            expected=expected.structure,
            do=IN_ORDER
            if swapped
            else "return the new carry as a tree like the carry that came in: cell(params, "
            "carry, x) -> (carry, out)",
        )
    for name, a, b in zip(expected.names, found.leaves, expected.leaves, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise MisfitError(
                f"The step changes the shape or dtype of the state {name}.",
                got=f"{a.dtype}{list(a.shape)}",
                expected=f"{b.dtype}{list(b.shape)}",
                do=IN_ORDER
                if swapped
                else "start with a state of the shape and dtype that the step returns, or "
                "convert it in the step",
            )
    return new, out
