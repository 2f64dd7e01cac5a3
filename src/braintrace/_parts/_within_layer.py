"""The carrier that is exact within a layer: the whole influence of each weight on its layer's state, lane by lane.

With h the n state elements of a layer in one lane (every carried value, so that recurrence is complete),

    J <- (dh_t/dh_{t-1}) J + dh_t/dW                (n, shape of W) for each lane and weight
    gradient of W = sum over lanes of  (dL_t/dh_{t-1}) J_{t-1}, and the step's own

dh_t/dh_{t-1} is found by n reverse passes, each for one element in all lanes at once: lanes do not mix, so there is never a
Jacobian across the batch. K steps at once have dh_K/dh_0 in its place: one product with J for all of them. Memory O(B n |W|);
time O(B n^2 |W|) for K steps and O(B n (|W| + n^2)) for each, as batched products.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._analysis import CellGraph, Site
from .._errors import CompilationError, problem
from ._carrier import Carrier, represented, trace_dtype
from ._layer_slots import flat_layer, layer_sizes
from ._sensitivity import Sensitivity

_EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands


@dataclasses.dataclass(frozen=True)
class WithinLayer(Carrier):
    """`dtype`: of the traces; by default that of y, at least float32."""

    dtype: Any = None

    whole_layer: ClassVar[bool] = True

    def init(self, graph: CellGraph) -> Any:
        lanes = graph.lanes or 1
        sizes = layer_sizes(graph)
        return [
            {layer: jnp.zeros((lanes, sizes[layer], *self._shape(graph, site)), trace_dtype(site, self.dtype))
             for layer in fed_layers(graph, site)}
            for site in graph.sites
        ]  # fmt: skip

    def _shape(self, graph: CellGraph, site: Site) -> tuple[int, ...]:
        """Shape of the part of the weight that one lane meets."""
        axis = _operand_axis(graph, site)
        if axis is None:
            return site.weight.shape
        return tuple(1 if k == axis else s for k, s in enumerate(site.weight.shape))

    def advance(self, graph: CellGraph, before: Any, local: Sensitivity, reset: Any) -> Any:
        assert local.layers is not None
        new = []
        for n, site in enumerate(graph.sites):
            moved = local.layers
            new.append({
                layer: self._advance(graph, site, old, moved[layer], n, local.data[n]) for layer, old in before[n].items()
            })  # fmt: skip
        return new

    def _advance(self, graph: CellGraph, site: Site, old: Any, moved: Any, n: int, data: list[Any]) -> Any:
        spread = jnp.einsum("jbk,bk...->bj...", moved.rows.astype(old.dtype), old, precision=_EXACT)
        drive = moved.drive[n].astype(old.dtype)  # (n of the layer, K, *shape of y)
        return (spread + lane_gradients(graph, site, data, drive)).astype(old.dtype)

    def contract(self, graph: CellGraph, traces: Any, entry: Sequence[Any]) -> list[Any]:
        found = []
        for n, site in enumerate(graph.sites):
            total = jnp.zeros(site.weight.shape, trace_dtype(site, self.dtype))
            for layer, trace in traces[n].items():
                a = flat_layer(graph, layer, entry).astype(trace.dtype)
                part = jnp.einsum("bk,bk...->b...", a, trace, precision=_EXACT)
                axis = _operand_axis(graph, site)
                total = total + (part.sum(0) if axis is None else jnp.concatenate(list(part), axis))
            found.append(total)
        return found


def fed_layers(graph: CellGraph, site: Site) -> list[int]:
    """The layers whose state the site moves at its own step without passing through another layer."""
    assert graph.layers is not None
    plan = graph.layers
    found = []
    for layer, leaves in enumerate(plan.leaves):
        others = {v for v, k in plan.layer_of.items() if k != layer}
        reached = set(site.end.outputs) - others
        for e in graph.step:
            if any(v in reached for v in e.inputs):
                reached.update(v for v in e.outputs if v not in others)
        if any(graph.new_carry[k] in reached for k in leaves):
            found.append(layer)
    return found


def _operand_axis(graph: CellGraph, site: Site) -> int | None:
    """The lane axis of an operand that has one (a bias broadcast over the batch), or None."""
    if site.is_operation or graph.lanes is None or not site.weight.shape or site.weight.shape[0] != graph.lanes:
        return None
    return 0


def lane_gradients(graph: CellGraph, site: Site, data: list[Any], drive: jax.Array) -> jax.Array:
    """(lanes, n, *part of W): each lane's weight gradient, summed over K steps, for each of the n cotangents `drive` of y."""
    lanes = graph.lanes
    if not site.is_operation:
        axis, total = _operand_axis(graph, site), drive.sum(1)
        return total[None] if axis is None else jnp.expand_dims(jnp.moveaxis(total, 1, 0), 2)
    x = jax.vmap(lambda *data: represented(site, list(data), drive.dtype))(*data)
    if lanes is None:
        return jax.vmap(lambda c: site.rule.weight_gradient_sum(x, c))(drive)[None]
    y_axis = graph.lane_axis(site)
    if y_axis is None:
        raise CompilationError(
            problem("A weight operation does not keep the lanes apart, so its exact influence has no lane.",
                    got=site.equation.name, expected="an operation with the batch along axis 0 of its data",
                    do="use D_RTRL, or map a cell written for one sample over the batch", at=site.equation.source)
        )  # fmt: skip
    x_axis = site.rule.lane_axis(y_axis)
    one_lane = lambda v, axis: jnp.expand_dims(v, axis)  # noqa: E731

    def lane(x: jax.Array, c: jax.Array) -> jax.Array:
        data = x if x_axis is None else one_lane(x, x_axis + 1)
        return jax.vmap(lambda c: site.rule.weight_gradient_sum(data, one_lane(c, y_axis + 1)))(c)

    return jax.vmap(lane, in_axes=(None if x_axis is None else x_axis + 1, y_axis + 2))(x, drive)
