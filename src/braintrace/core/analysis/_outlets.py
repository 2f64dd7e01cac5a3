"""Outlets: the last values of the state's own that the outputs of a step are made of.

An outlet is a variable with a place in the hidden state (its labels) that an output, or what has
none on its way to the outputs, reads. All that a loss of the step sees of the state passes an
outlet. Each gets a leaf of the carry: the derivative of a loss with respect to that leaf is the
loss's with respect to the outlet alone, and the leaf's new value says how the state moves it.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr import Atom, Equation, Program, Var, extend, variables
from ._dependence import live, reach
from ._graph import CellGraph, ExtraLeaf

sg = jax.lax.stop_gradient


def find_outlets(graph: CellGraph) -> list[Var]:
    """The outlets, in the order of the program."""
    outlets, _ = _ways_out(graph)
    return outlets


def _ways_out(graph: CellGraph) -> tuple[list[Var], list[Equation]]:
    """The outlets, and the equations between them and the outputs."""
    old = [graph.carry[k] for k in graph.hidden]
    moving = reach(graph.step, [*old, *(v for s in graph.sites for v in s.end.outputs)])
    stateful = lambda v: v in moving and (v in graph.labels or v in old)
    found = {v for v in variables(graph.outs) if stateful(v)}
    needed, way = {v for v in variables(graph.outs) if not stateful(v)}, []
    for e in reversed(graph.step):
        if any(v in needed for v in e.outputs):
            way.append(e)
            found |= {v for v in variables(e.inputs) if stateful(v)}
            needed |= {v for v in variables(e.inputs) if not stateful(v)}
    order = [*old, *(v for e in graph.step for v in e.outputs)]
    return [v for v in order if v in found], way[::-1]


def parts_of(outlet: Var) -> int:
    """How many leaves an outlet gets: a complex one has two."""
    return 2 if np.dtype(outlet.dtype).kind == "c" else 1


def with_outlets(graph: CellGraph) -> CellGraph:
    """`graph`, of one layer, with a leaf of the carry for each outlet, behind all others."""
    assert graph.layers is not None
    outlets, way = _ways_out(graph)
    equations, swapped = list(graph.step), dict[Atom, Atom]()
    leaves, news, axes = list[Var](), list[Atom](), dict[Atom, object]()
    for v in outlets:
        split = parts_of(v) > 1
        dtype = np.finfo(v.dtype).dtype if split else v.dtype
        own = [Var(v.shape, dtype) for _ in range(parts_of(v))]
        taps = extend(equations, jax.lax.complex, own)[0] if split else own[0]
        [swapped[v]] = extend(equations, lambda v, tap: v + (tap - sg(tap)), [v, taps])
        leaves += own
        news += extend(equations, lambda v: (jnp.real(v), jnp.imag(v)), [v]) if split else [v]
        if (axis := graph.batch_axis(v)) is not None:
            axes |= dict.fromkeys(own, axis)
    for e in way:
        copy = e.copy()
        copy.inputs = [swapped.get(v, v) for v in e.inputs]
        equations.append(copy)
        swapped |= dict(zip(e.outputs, copy.outputs, strict=True))
    return _assembled(graph, equations, swapped, (leaves, news, axes))


def _assembled(
    graph: CellGraph, step: list[Equation], swapped: Mapping[Atom, Atom], added: tuple
) -> CellGraph:
    leaves, news, axes = added
    assert graph.layers is not None
    carry, new_carry = [*graph.carry, *leaves], [*graph.new_carry, *news]
    outs = [swapped.get(v, v) for v in graph.outs]
    inputs = [*graph.params, *carry, *graph.xs]
    program = live(Program(inputs, [*graph.prelude, *step], [*new_carry, *outs]))
    kept = set(program.equations)
    numbers = tuple(range(len(graph.carry), len(carry)))
    plan = dataclasses.replace(
        graph.layers,
        leaves=((*graph.layers.leaves[0], *numbers),),
        leaf_layer=graph.layers.leaf_layer | dict.fromkeys(leaves, 0),
    )
    zeros = [np.zeros(v.shape, v.dtype) for v in leaves]
    return dataclasses.replace(
        graph,
        program=program,
        carry=carry,
        prelude=[e for e in graph.prelude if e in kept],
        step=[e for e in step if e in kept],
        new_carry=new_carry,
        outs=outs,
        hidden=(*graph.hidden, *numbers),
        leaf_paths=(*graph.leaf_paths, *("<outlet>" for _ in leaves)),
        claim=graph.claim and graph.claim.extended(len(leaves)),
        batch=graph.batch and dataclasses.replace(graph.batch, axes={**graph.batch.axes, **axes}),
        extra=(*graph.extra, *(ExtraLeaf("outlet", zero, False) for zero in zeros)),
        layers=plan,
    )
