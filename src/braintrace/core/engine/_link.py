"""Where the derivatives of a step's loss become the gradient of a rule.

Automatic differentiation through a step delivers, for the loss L_t of that step, `entry` (the
derivative with respect to the hidden state before the step), for each site `drive` (that with
respect to its y), and the ordinary gradient of all that is not a site. `link` turns entry and
drives into the weight gradients of the rule: forward it is the identity on the hidden state and
zero perturbations on each y; backward it asks the carrier.

Under `jax.vmap` of a step with shared weights, the gradient of a weight is the sum over the map.
What is mapped there counts as samples, and the carrier forms the sum in one pass; JAX would form a
gradient for each of them first, as many as there are traces.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._compat import is_differentiable, with_batch_rule
from ..analysis import CellGraph
from ..step import Perturbations, Values, hidden_part, with_hidden
from ..traces import every_drive, zero_perturbations
from ._once import Refusal, undifferentiated

stop = jax.lax.stop_gradient

_SECOND = Refusal(
    "An online gradient has no derivative.",
    "a second derivative (jax.hessian, a grad of a grad) through a step of the learner",
    "one derivative",
    "differentiate a loss of the step once; for second derivatives differentiate the cell itself",
)

Kept = PyTree[Array]  # what the reverse pass of a step reads
# what is kept, `entry` and the drives of each site, all with an axis of samples in front, to the
# gradient of each site's weight: the sum over these samples
Gradients = Callable[[CellGraph, Kept, Values, Values], list[Array]]
# the structure of the graph, and the same under the maps of a link; the gradient of a weight is
# mapped where the weight is
Backward = Callable[[PyTree[Array], Kept, Values, Values], list[Array]]


class Linked(NamedTuple):
    """What a link takes; `read`, a number, depends on all that the traces depend on."""

    weights: list[Array]
    hidden: list[Array]
    read: Float[Array, "..."]
    structure: PyTree[Array]
    kept: Kept


def link(
    graph: CellGraph, gradients: Gradients, ready: Values, carry: Values, xs: Values, kept: Kept
) -> tuple[list[Array], Perturbations]:
    """(carry, perturbations), stopped, whose cotangents reach the site weights as `gradients(graph,
    kept, entry, drives)`.

    `kept` gets no cotangent. It is not stopped itself: an eager call would then keep a copy of the
    traces. A second derivative is refused: of `ready` and `xs`, which the traces depend on.
    """
    env, start = dict(zip(graph.prelude_results, ready, strict=True)), stop(list(carry))
    weights, read = [env[s.weight] for s in graph.sites], first_elements((list(ready), list(xs)))
    structure = stop(graph.structure(ready))
    given = Linked(weights, hidden_part(graph, start), read, structure, kept)
    leaves, tree = jax.tree.flatten(given)
    perturbations = jax.eval_shape(lambda: zero_perturbations(graph))
    dtypes = [w.dtype for w in weights]

    def of_samples(axes: int) -> Backward:
        """Under that many maps with shared weights."""

        def backward(structure: PyTree[Array], *values: PyTree[Array]) -> list[Array]:
            in_front = jax.tree.map(lambda v: v.reshape(-1, *v.shape[axes:]), values)
            return gradients(graph.bound(structure), *in_front)

        return backward

    def under(maps: tuple[int, ...], backward: Backward, shared: bool) -> Callable[..., Any]:
        """The link under maps of these sizes; `shared`: whether all of them share the weights."""

        @jax.custom_vjp
        def identity(*leaves: Array) -> list[Array]:
            zeros = jax.tree.map(lambda p: jnp.zeros((*maps, *p.shape), p.dtype), perturbations)
            return jax.tree.leaves((tree.unflatten(leaves).hidden, zeros))

        def forward(*leaves: Array) -> Any:
            given = tree.unflatten(leaves)
            once = undifferentiated(given.read.sum(), _SECOND)
            return identity(*leaves), (given.structure, given.kept, once)

        def pulled(residuals: Any, cotangents: list[Array]) -> Any:
            structure, kept, once = residuals
            entry, drives = jax.tree.unflatten(outs, cotangents)
            found = backward(structure, kept, entry, every_drive(graph, drives))
            found = [beside(g, once).astype(d) for g, d in zip(found, dtypes, strict=True)]
            return (*found, *[None] * (len(leaves) - len(found)))

        def rule(size: int, mapped: Sequence[bool], leaves: Sequence[Array]) -> list[Array]:
            is_mapped, given = tree.unflatten(mapped), tree.unflatten(leaves)
            along = lambda v, m: v if m else jnp.broadcast_to(v, (size, *v.shape))
            pairs = (given.hidden, given.kept), (is_mapped.hidden, is_mapped.kept)
            hidden, kept = jax.tree.map(along, *pairs)
            own = jax.tree.leaves((is_mapped.weights, is_mapped.structure))
            now = shared and not any(own)
            next_backward = of_samples(len(maps) + 1) if now else _each(backward, is_mapped)
            whole = given._replace(hidden=hidden, kept=kept)
            return under((size, *maps), next_backward, now)(*jax.tree.leaves(whole))

        identity.defvjp(forward, pulled)
        return with_batch_rule(identity, rule)

    outs = jax.tree.structure((given.hidden, perturbations))
    hidden, perturbations = jax.tree.unflatten(outs, under((), of_samples(0), True)(*leaves))
    return with_hidden(graph, start, hidden), perturbations


def _each(backward: Backward, mapped: Linked) -> Backward:
    """`backward` for each entry of a map; what is summed is what the entries share."""
    axes = jax.tree.map(lambda m: 0 if m else None, mapped.structure)

    def of_all(*given: PyTree[Array]) -> list[Array]:
        found = jax.vmap(backward, in_axes=(axes, 0, 0, 0))(*given)
        return [g if own else g.sum(0) for g, own in zip(found, mapped.weights, strict=True)]

    return of_all


def first_elements(values: PyTree[Array]) -> Float[Array, ""]:
    """A number that depends on every floating-point array of `values`."""
    total = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(values):
        if is_differentiable(leaf.dtype) and leaf.size:
            total = total + leaf.reshape(-1)[0].real.astype(jnp.float32)
    return total


def beside(value: Array, other: Float[Array, ""]) -> Array:
    """`value`, which for transformations of JAX depends on `other`, too."""
    never = jnp.zeros((), bool)
    return jax.lax.select(never, jnp.full(value.shape, other.astype(value.dtype)), value)
