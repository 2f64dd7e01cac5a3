"""The rows of the table: rules with options, and truncated BPTT beside them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

import braintrace
from braintrace.rules import ALGORITHMS

from .networks import Network

TBPTT = "tbptt"


@dataclasses.dataclass(frozen=True)
class Method:
    """`options` of `compile`, by network. `draws`: whether its learners begin with a key;
    `projects`: whether the targets are given to it apart from the loss. `alone`: the only network
    that it is measured on; '' for all.
    """

    rule: str
    options: Callable[[Network], Mapping[str, Any]] = lambda network: {}
    draws: bool = False
    projects: bool = False
    alone: str = ""

    def learner(self, network: Network, params: PyTree, carry: PyTree, x: Array) -> Any:
        """Compiled; raises what `compile` raises."""
        given = {"params": params, "carry": carry, **self.options(network)}
        return braintrace.compile(network.cell, self.rule, x, **given)

    def begun(self, learner: Any, params: PyTree, carry: PyTree, seed: Array) -> Any:
        """The learner's state before the first step."""
        return learner.init(params, carry, **({"key": seed} if self.draws else {}))

    def targets(self, ys: Array) -> dict[str, Array]:
        """What a step, or a sequence, is given beside its inputs."""
        return {"y_target": ys} if self.projects else {}


def _of(rule: str, **options: Any) -> Method:
    return Method(rule, lambda network: options)


def _drawing(rule: str, **options: Any) -> Method:
    return dataclasses.replace(_of(rule, **options), draws=True)


def _projecting(rule: str, **options: Any) -> Method:
    return dataclasses.replace(_of(rule, **options), projects=True)


_leak = lambda network: {"leak": network.leak}

METHODS: dict[str, Method] = {
    "rtrl": _of("rtrl"),
    "snap 1": _of("snap", n=1),
    "sk_rtrl 4": _of("sk_rtrl", rank=4, certificate=False),
    # hours on all four, and published for one
    "sk_rtrl 16": dataclasses.replace(_of("sk_rtrl", rank=16, certificate=False), alone="tanh"),
    "random_rtrl 4": _of("random_rtrl", k=4),
    "kf_rtrl": _drawing("kf_rtrl"),
    "ok_rtrl 4": _drawing("ok_rtrl", rank=4),
    "uoro": _drawing("uoro"),
    "d_rtrl": _of("d_rtrl"),
    "pp_prop": Method("pp_prop", lambda network: {"decay_or_rank": max(network.leak, 0.5)}),
    "eprop": _of("eprop"),
    "modprop": _of("modprop"),
    "mdgl": _of("mdgl"),
    "rflo": _of("rflo", random_feedback_key=0),
    "ottt": Method("ottt", _leak),
    "otpe": Method("otpe", _leak),
    "s_tllr": _of("s_tllr"),
    "sltt": _of("sltt"),
    "instantaneous": _of("instantaneous"),
    "osttp": _projecting("osttp", feedback_key=0),
    "decolle": _projecting("decolle", readout_key=0),
}


def methods(network: str) -> dict[str, Method]:
    """Those that are measured on a network, whose rule is registered."""
    here = lambda m: m.rule in ALGORITHMS and m.alone in ("", network)
    return {name: m for name, m in METHODS.items() if here(m)}


def squared_error(out: Array, y: Array) -> Array:
    """Of each sample."""
    return jnp.sum((out - y) ** 2, -1)
