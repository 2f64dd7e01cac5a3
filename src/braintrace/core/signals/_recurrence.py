"""A layer's product of its own old activity with a weight, as a matrix from neuron to neuron."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._compat import P
from .._errors import CompilationError
from ..analysis import CellGraph
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Equation, Var, makers
from ._readouts import weight_of


class Recurrence(NamedTuple):
    """The product at `edge` of an operand with `weight`; u is the activity: the operand itself, or
    what `joined` concatenates with inputs, say.
    """

    edge: Edge
    weight: Atom
    u: Var
    joined: Equation | None
    batched: bool

    @property
    def size(self) -> int:
        """The number of neurons."""
        return self.u.size // (self.u.shape[0] if self.batched else 1)

    def matrix(self, w: Array) -> Float[Array, "n n"]:
        """What the operation makes of each neuron's activity alone."""
        equation, k = self.edge
        one_sample = lambda v: (1, *v.shape[1:]) if self.batched else v.shape

        def made(one: Float[Array, " n"]) -> Float[Array, " n"]:
            data = one.reshape(one_sample(self.u))
            if (e := self.joined) is not None:
                zeros = lambda v: jnp.zeros(one_sample(v), v.dtype)
                [data] = e.bind([data if v is self.u else zeros(v) for v in e.inputs])
            return equation.bind([w, data] if k == 1 else [data, w])[0].reshape(-1)

        return jax.vmap(made)(jnp.eye(self.size, dtype=self.u.dtype))


def old_parts(graph: CellGraph, operand: Atom) -> tuple[list[Var], Equation | None]:
    """What of an operand is old activity, and the concatenation that joins it with the rest."""
    maker = makers(graph.step).get(operand) if isinstance(operand, Var) else None
    joined = maker if maker is not None and maker.primitive is P.concatenate_p else None
    parts = [operand] if joined is None else joined.inputs
    of_before = lambda v: isinstance(v, Var) and v in graph.old and v not in graph.after
    return [v for v in parts if isinstance(v, Var) and of_before(v)], joined


def recurrence(graph: CellGraph, edge: Edge, subject: str, do: str) -> Recurrence:
    """The product at an edge; refused, as `subject`, if it is none of a real activity with one
    weight that gives each neuron one number.
    """
    (equation, k), w = edge, weight_of(graph, edge)
    parts, joined = old_parts(graph, equation.inputs[k])
    [y, *others] = equation.outputs
    refuse = functools.partial(CompilationError, subject, do=do, at=equation.source)
    if w is None or others or len(parts) != 1 or jnp.issubdtype(y.dtype, np.complexfloating):
        raise refuse(
            got=f"a layer that feeds itself through {equation.name}",
            expected="a product of its real activity with a weight",
        )
    [u] = parts
    if u.shape != y.shape:
        raise refuse(got=f"a product from {u.shape} to {y.shape}", expected="one shape")
    axis, weights = graph.batch_axis(u), graph.batch and graph.batch.aligned.get((equation, 1 - k))
    if weights is not None or (graph.batch is not None and (axis is None or axis.dim)):
        raise refuse(
            got="weights for each sample" if weights else "samples that are not on axis 0",
            expected="a batch on axis 0, and one weight for all samples",
        )
    return Recurrence(edge, w, u, joined, graph.batch is not None)
