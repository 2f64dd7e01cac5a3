"""The influence of calls with a derivative of their own: that of their rule."""

from collections.abc import Callable

from ..jaxpr import Atom, Derivative, Equation, Var, derivative
from ._dependence import depends
from ._maps import Influence, Map, union


def of_call(
    equation: Equation, influences: Callable[[Equation], list[Influence]]
) -> list[Influence]:
    """An element of an operand influences those elements of the results whose cotangents reach its
    own; `influences` answers for the equations of the rule.
    """
    rule = derivative(equation)
    if rule is None:
        return [None] * len(equation.inputs)
    moving = [isinstance(v, Var) and v.differentiable for v in equation.inputs]
    found: list[Influence] = [None if m else [] for m in moving]
    for k, cotangent in zip(rule.operands, rule.program.outputs, strict=True):
        ways = _ways(rule, cotangent, influences)
        arrived = [(o, ways.get(c, [])) for o, c in zip(rule.results, rule.cotangents, strict=True)]
        if k in rule.bent and not any(maps for _, maps in arrived):
            # made of values alone: such a derivative acts where the values are
            same = [o for o in rule.results if equation.outputs[o].size == equation.inputs[k].size]
            arrived = [(o, [Map(0)]) for o in same] or [(0, None)]
        if any(maps is None for _, maps in arrived):
            found[k] = None
        else:
            found[k] = [m.reversed(o) for o, maps in arrived for m in maps or ()]
    return found


def _ways(
    rule: Derivative, end: Atom, influences: Callable[[Equation], list[Influence]]
) -> dict[Atom, Influence]:
    """For each variable of the rule that the results' cotangents reach: its influence on `end`."""
    moving = depends(rule.program.equations, rule.cotangents)
    ways: dict[Atom, Influence] = {end: [Map(0)]} if end in moving else {}
    for e in reversed(rule.program.equations):
        after = [ways.get(v, []) for v in e.outputs]
        if all(maps == [] for maps in after):
            continue
        for v, influence in zip(e.inputs, influences(e), strict=True):
            if isinstance(v, Var) and v in moving:
                ways[v] = _joined(ways.get(v, []), influence, after, v.size)
    return ways


def _joined(known: Influence, influence: Influence, after: list[Influence], size: int) -> Influence:
    """`known` and what goes on along `influence`, where `after` holds the ways of the results."""
    if known is None or influence is None or any(after[m.output] is None for m in influence):
        return None
    onward = [m.then(way) for m in influence for way in after[m.output] or ()]
    maps = known + [m for m in onward if m is not None]
    return None if None in onward else union(maps, size)
