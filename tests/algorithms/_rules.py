"""Every algorithm with options, the oracle that computes the same gradient, and a neighbour that
does not.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import braintrace
from braintrace import checks
from zoo import loss
from zoo._interpret import run_once

from .cells import EXAMPLES, LEAK, SIX, B, T, data

#: Programs that are compiled once and run once.
QUICK = {"xla_backend_optimization_level": 0}
TARGETS = 3  # size of projected targets
DECAYS = (0.9, 0.7)
SUM = {"loss_fn": loss, "reduction": "sum"}


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def readout_like(name):
    return drawn(*EXAMPLES[name].params["o"])


@functools.cache
def projections(name):
    """A feedback matrix for each layer."""
    example = EXAMPLES[name]
    carry = data(name)[1]
    sizes = [layer.out(h)[0].size for layer, h in zip(example.cell.layers, carry, strict=False)]
    return tuple(drawn(TARGETS, size, seed=k) for k, size in enumerate(sizes))


def split_projections(name):
    """The same matrices, cut into one for each state group."""
    groups = EXAMPLES[name].groups
    return [b for whole in projections(name) for b in np.split(whole, groups, axis=1)]


def target_of(steps=T, samples=B):
    return jnp.asarray(drawn(steps, samples, TARGETS))


@dataclasses.dataclass(frozen=True)
class Case:
    """`options` and `oracle_options` are functions of the example's name."""

    algorithm: str
    oracle: Callable[..., Any]
    options: Callable[[str], dict] = lambda name: {}
    oracle_options: Callable[[str], dict] = lambda name: {}
    neighbour: str = "d_rtrl"
    cells: tuple[str, ...] = SIX
    target: bool = False

    def learner(self, name, params=None, carry=None, x=None):
        p, c, xs, _ = data(name)
        carry = c if carry is None else carry
        params = p if params is None else params
        x = xs[0] if x is None else x
        return braintrace.compile(
            EXAMPLES[name].cell, self.algorithm, x, params=params, carry=carry, **self.options(name)
        )

    def driver(self, steps=T, samples=B):
        """What the sequence drivers need beside the data."""
        return {"y_target": target_of(steps, samples)} if self.target else {}

    def by_oracle(self, name, *given, **options):
        extra = {"y_target": target_of(len(given[2]))} if self.target else {}
        return self.oracle(
            EXAMPLES[name].cell, *given, **SUM, **self.oracle_options(name), **extra, **options
        )[0]


def _feedback(name, decay=0.0):
    """B = W + E with E decaying, or B = E."""
    e, w = readout_like(name), data(name)[0]["o"]
    return lambda t: {"o": jnp.asarray(w + e * (1 - decay) ** t if decay else e)}


#: kappa of the model where it has one
def _own_kappa(name):
    leak = EXAMPLES[name].cell.leak
    return {"kappa_filter_decay": 0.0 if leak is None else "readout"}


LIKE = (
    "leaky_tanh",
    "two_alif",
    "three_lif",
    "conv_lif",
    "synapse",
    "recurrent_lif",
)  # drives shaped as the activity


def _mask_of(case, name):
    """M as the learner draws it, in the order of positions."""
    this = learner(case, name)
    return this.rule.carrier.mask(this.graph.moves)


CASES = {
    "d_rtrl": Case("d_rtrl", checks.layered_oracle, neighbour="instant"),
    "pp_prop": Case(
        "pp_prop",
        checks.pp_prop_oracle,
        lambda n: {"decay_or_rank": DECAYS},
        lambda n: {"decays": DECAYS},
    ),
    "eprop": Case(
        "eprop",
        checks.eprop_oracle,
        lambda n: {"kappa_filter_decay": 0.7},
        lambda n: {"kappa": 0.7},
    ),
    "eprop_random": Case(
        "eprop",
        checks.eprop_oracle,
        lambda n: {"feedback": "random", "feedback_weights": [readout_like(n)], **_own_kappa(n)},
        lambda n: {"feedback": _feedback(n)},
    ),
    "eprop_adaptive": Case(
        "eprop",
        checks.eprop_oracle,
        lambda n: {
            "feedback": "adaptive",
            "feedback_weights": [readout_like(n)],
            "feedback_decay": 0.1,
        },
        lambda n: {"kappa": 0.0, "feedback": _feedback(n, 0.1)},
    ),
    "ostl_recurrent": Case(
        "ostl_recurrent",
        checks.layered_oracle,
        oracle_options=lambda n: {"recurrent": True},
        neighbour="instant",
    ),
    "ostl_feedforward": Case("ostl_feedforward", checks.layered_oracle, neighbour="instant"),
    "ottt": Case("ottt", checks.ottt_oracle, lambda n: {"leak": LEAK}, lambda n: {"leak": LEAK}),
    "otpe": Case("otpe", checks.otpe_oracle, lambda n: {"leak": LEAK}, lambda n: {"leak": LEAK}),
    "f_otpe": Case(
        "otpe",
        checks.otpe_oracle,
        lambda n: {"leak": LEAK, "mode": "approx"},
        lambda n: {"leak": LEAK, "approximate": True},
        neighbour="ottt",
        cells=LIKE,
    ),
    "osttp": Case(
        "osttp",
        checks.osttp_oracle,
        lambda n: {"B_list": split_projections(n)},
        lambda n: {"B_list": projections(n)},
        target=True,
    ),
    "osttp_exact": Case(
        "osttp",
        checks.osttp_oracle,
        lambda n: {"B_list": split_projections(n), "scope": "exact"},
        lambda n: {"B_list": projections(n), "exact": True},
        target=True,
    ),
    **{
        f"snap_{n}": Case(
            "snap", checks.snap_oracle, lambda name, n=n: {"n": n}, lambda name, n=n: {"n": n}
        )
        for n in (1, 2)
    },
    "random_rtrl": Case(
        "random_rtrl",
        checks.random_rtrl_oracle,
        lambda name: {"k": 1},
        lambda name: {"kept": _mask_of("random_rtrl", name)},
    ),
    "rtrl": Case(
        "rtrl", lambda cell, *given, **options: checks.bptt_gradient(cell, *given, **options)
    ),
    "rflo": Case(
        "rflo",
        checks.eprop_oracle,
        lambda n: {"feedback_weights": [readout_like(n)]},
        lambda n: {"kappa": 0.0, "feedback": _feedback(n)},
    ),
}

#: Rules that are no algorithm of ours: neighbours only.
NEIGHBOURS = CASES | {
    "instant": Case("ottt", checks.ottt_oracle, lambda n: {"leak": 0.0}, lambda n: {"leak": 0.0}),
    "bptt": Case(
        "d_rtrl", lambda cell, *given, **options: checks.bptt_gradient(cell, *given, **options)
    ),
}


@functools.cache
def oracle(case, name):
    """The gradient of an oracle on an example's data."""
    return run_once(functools.partial(NEIGHBOURS[case].by_oracle, name), *data(name))


@functools.cache
def learner(case, name):
    return NEIGHBOURS[case].learner(name)


def windowed(this, given, window, **driver):
    params, carry, xs, ys = given
    return this.etrace_grad(
        params, this.init(params, carry), xs, ys, window=window, return_state=False, **SUM, **driver
    )[0]


def stepwise(this, given, y_target=None):
    """Gradients of `update`, step by step, added up."""
    params, carry, xs, ys = given

    def one(both, at):
        state, total = both
        x, y, target = at

        def objective(params):
            new, out = this.update(params, state, x, y_target=target)
            return jnp.sum(loss(out, y)), new

        found, new = jax.grad(objective, has_aux=True)(params)
        return (new, jax.tree.map(jnp.add, total, found)), None

    start = (this.init(params, carry), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(one, start, (xs, ys, y_target))[0][1]


def norm(tree):
    return {k: float(jnp.linalg.norm(v)) for k, v in tree.items()}


def apart(a, b):
    """Relative distances, by parameter."""
    return {k: float(jnp.linalg.norm(a[k] - b[k]) / jnp.linalg.norm(b[k])) for k in b}


def same(a, b, rtol=1e-10):
    off = apart(a, b)
    assert max(off.values()) <= rtol, off
