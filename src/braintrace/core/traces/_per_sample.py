"""Weight gradients of a step sample by sample: what a cotangent of the state says of each sample's
part of the weights.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._precision import wide
from ..analysis import Site
from ..step import Values
from ._carrier import represented
from ._sensitivity import LayerSensitivity, every_drive
from ._slots import part_shape
from ._within_layer import driven


def weight_cotangents(
    moved: LayerSensitivity, cotangent: Float[Array, "B n"], data: list[list[Array]]
) -> list[Inexact[Array, "B ..."]]:
    """For each site `cotangent` times dh_K/dW of the steps' own, sample by sample (B, *part of W):
    one reverse pass and one weight gradient.
    """
    graph = moved.graph
    drives = every_drive(graph, moved.pulled(cotangent)[1])

    def of_site(site: Site, x: list[Array], drive: Array) -> Array:
        shape = (graph.samples, 1, *part_shape(graph, site))
        return driven(graph, site, jnp.zeros(shape, wide(drive.dtype)), x, drive[None], 0)[:, 0]

    return [of_site(*of) for of in zip(graph.sites, data, drives, strict=True)]


def step_gradient(site: Site, data: Values, drive: Inexact[Array, "B *y"]) -> Array:
    """The gradient of a weight at one step, of the derivative with respect to y, summed over an
    axis of further samples in front.
    """
    dtype = wide(drive.dtype)
    each = jax.vmap(lambda data: represented(site, data, dtype), axis_size=drive.shape[0])
    return site.rule.weight_gradient_sum(each(data), drive.astype(dtype))
