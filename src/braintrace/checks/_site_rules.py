"""`check_site_rule`: whether the layout of a weight operation's trace is that operation's own
derivative.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..core._compat import is_differentiable
from ..core._domains import array, described, positive, whole
from ..core._errors import UsageError
from ..core.jaxpr import ControlFlowPolicy, Equation, Var, evaluate, reader, stage
from ..core.sites import SiteRule, site_rule

_STEPS = 3  # steps of the laws that sum over time


def check_site_rule(
    operation: Callable[..., PyTree],
    *operands: ArrayLike,
    weight: int = 0,
    make: Callable[[Equation, int], SiteRule | None] = site_rule,
    rtol: float | None = None,
    seed: int = 0,
) -> SiteRule:
    """Compare the site rule of a weight operation with the operation's own weight gradient, as JAX
    computes it.

    Args:
        operation: a function of `operands` that holds one equation in which the weight meets data,
            `jnp.dot` say. Transposes and reshapes of the operands are allowed around it.
        *operands: example values; the data are used as given, indices included.
        weight: number of the operand that is the weight.
        make: `(equation, operand) -> rule`; by default the rules of the registry
            (`register_site_rule`).
        rtol: relative error that is allowed; by default 1e-10 in float64, 1e-4 in float32.
        seed: of the random cotangents.

    Returns:
        The rule.

    Raises:
        AssertionError: naming the law that is broken.
        UsageError: when no rule covers an equation of the operation.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> type(checks.check_site_rule(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 4)), weight=1)).__name__
    'DotGeneralRule'
    """
    if not callable(operation) or not callable(make):
        got = described(make if callable(operation) else operation)
        raise UsageError("Not a function.", got=got, expected="an operation, and a maker of rules")
    weight, seed = whole("weight", weight, least=0), whole("seed", seed, least=0)
    if weight >= len(operands):
        expected = f"the number of an operand, below {len(operands)}"
        raise UsageError("Invalid weight.", got=weight, expected=expected)
    rtol = None if rtol is None else positive("rtol", rtol, zero=True)
    values = [array(f"operand {k}", v) for k, v in enumerate(operands)]
    avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    policy = ControlFlowPolicy(scan_unroll_limit=64)
    flat = lambda *v: jax.tree.leaves(operation(*v))
    program, _ = stage(flat, avals, [is_differentiable(v.dtype) for v in values], policy)
    made, found = {program.inputs[weight]}, None  # what depends on the weight alone
    for e in program.equations:
        for k, v in enumerate(e.inputs):
            if found is None and v in made and (rule := make(e, k)) is not None:
                found = (e, k, rule)
        if all(not isinstance(v, Var) or v in made for v in e.inputs):
            made.update(e.outputs)
    if found is None:
        raise UsageError(
            "No site rule covers this operation.",
            got=[e.name for e in program.equations],
            expected="an equation with a rule for its weight operand",
            do="register_site_rule(primitive, make)",
        )
    equation, operand, rule = found
    env = dict(zip(program.inputs, values, strict=True))
    evaluate(program.equations, env)
    read = reader(env)
    if not rule.is_bound:
        rule = rule.bound([read(v) for v in rule.structure])
    met, random = [read(v) for v in equation.inputs], np.random.default_rng(seed)
    kernel, data = met[operand], [met[k] for k in rule.data]
    y = equation.outputs[0]
    allowed = rtol if rtol is not None else 1e-10 if jnp.finfo(y.dtype).bits >= 64 else 1e-4

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), y.dtype)

    def own(f: PyTree, data: list[jax.Array]) -> PyTree:
        def of(kernel: PyTree) -> PyTree:
            given = {**dict(zip(rule.data, data, strict=True)), operand: kernel}
            return equation.bind([given.get(k, v) for k, v in enumerate(met)])[0]

        return jax.vjp(of, kernel)[1](f)[0]

    def fail(what: str) -> None:
        raise AssertionError(f"{equation.name}: {what}")

    shape = jax.eval_shape(rule.spread, jax.ShapeDtypeStruct(y.shape, y.dtype), data).shape
    if shape != rule.trace_shape:
        fail(f"spread has shape {shape}, expected trace_shape {rule.trace_shape}")

    def laws(
        f: PyTree, fs: PyTree, data: list[jax.Array], stacked: list[jax.Array]
    ) -> dict[str, tuple[PyTree, PyTree]]:
        steps = [(fs[t], [d[t] for d in stacked]) for t in range(_STEPS)]
        entries, ones = rule.spread(f, data), rule.spread(jnp.ones_like(f), data)
        sum_of = lambda law: functools.reduce(operator.add, (law(*step) for step in steps))
        right, total = own(f, data), sum_of(own)
        x, xs = rule.represent(data), jnp.stack([rule.represent(d) for _, d in steps])
        one, several = rule.weight_gradient(x, f), rule.weight_gradient_sum(xs, fs)
        by_data = rule.data_gradient_sum(stacked, fs, kernel)
        pairs = {
            "collect(spread(f, data)) is the weight gradient": (rule.collect(entries), right),
            "spread is f times the data, entry by entry": (entries, rule.at_entries(f) * ones),
            "weight_gradient(represent(data), f) is the weight gradient": (one, right),
            "spread_sum is the sum of spread": (rule.spread_sum(fs, stacked), sum_of(rule.spread)),
            "weight_gradient_sum is the sum of weight gradients": (several, total),
            "data_gradient_sum is the sum of weight gradients": (by_data, total),
        }
        for axis in range(len(y.shape)):
            if (lane := rule.lane_axis(axis)) is not None:
                law = f"lane_axis({axis}) runs along the lanes of y"
                first = rule.weight_gradient(_first_only(x, lane), f)
                pairs[law] = first, rule.weight_gradient(x, _first_only(f, axis))
        return pairs

    once = jax.jit(laws, compiler_options={"xla_backend_optimization_level": 0})  # it runs once
    given = draw(y.shape), draw((_STEPS, *y.shape)), data, [_stack(d, draw) for d in data]
    for law, (got, wanted) in once(*given).items():
        if got.shape != wanted.shape:
            fail(f"{law}: shape {got.shape}, expected {wanted.shape}")
        scale = max(float(jnp.linalg.norm(wanted)), float(np.finfo(np.float32).tiny))
        off = float(jnp.linalg.norm(got - wanted)) / scale
        if not off <= allowed:
            fail(f"{law}: relative error {off:.1e}, allowed {allowed:.0e}")
    return rule


def _stack(value: PyTree, draw: Callable[[tuple[int, ...]], jax.Array]) -> PyTree:
    """Data of several steps: random values, or indices and events (zeros and ones) as they are,
    rolled.
    """
    if is_differentiable(value.dtype) and not bool(jnp.isin(value, jnp.arange(2)).all()):
        return draw((_STEPS, *value.shape)).astype(value.dtype)
    return jnp.stack([jnp.roll(value, k) for k in range(_STEPS)])


def _first_only(values: jax.Array, axis: int) -> jax.Array:
    """`values`, zero but for the first element along `axis`."""
    first = (slice(None),) * axis + (0,)
    return jnp.zeros_like(values).at[first].set(values[first])
