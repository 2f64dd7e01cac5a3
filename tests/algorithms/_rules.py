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


def activities(name):
    """Those of the layers before the first step."""
    layers = zip(EXAMPLES[name].cell.layers, data(name)[1], strict=False)
    return [layer.out(h) for layer, h in layers]


@functools.cache
def projections(name):
    """A feedback matrix for each layer."""
    sizes = [z[0].size for z in activities(name)]
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
    modulated: str = ""  # 'by sample' or 'by neuron'

    def learner(self, name, params=None, carry=None, x=None):
        p, c, xs, _ = data(name)
        carry = c if carry is None else carry
        params = p if params is None else params
        x = xs[0] if x is None else x
        return braintrace.compile(
            EXAMPLES[name].cell, self.algorithm, x, params=params, carry=carry, **self.options(name)
        )

    def driver(self, name, steps=T, samples=B):
        """What the sequence drivers need beside the data."""
        if self.target:
            return {"y_target": target_of(steps, samples)}
        if self.modulated == "by sample":
            return {"modulator": jnp.asarray(drawn(steps, samples, seed=1))}
        if self.modulated == "by neuron":
            return {
                "modulator": [
                    jnp.asarray(drawn(steps, samples, *z.shape[1:], seed=k))
                    for k, z in enumerate(activities(name))
                ]
            }
        return {}

    def by_oracle(self, name, *given, **options):
        extra = self.driver(name, len(given[2]))
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


def _slopes(name):
    """The derivative of what the step reads by each parameter: decays are read as sigmoids."""
    params = data(name)[0]
    slope = lambda v: jax.nn.sigmoid(v) * (1 - jax.nn.sigmoid(v))
    decays = ("tau", "alpha", "rho1", "rho2")
    return {k: slope(v) if k in decays else jnp.ones_like(v) for k, v in params.items()}


def local_readouts(name):
    """As `projections`, the other way round."""
    return [0.5 * b.T for b in projections(name)]


def smooth_l1(r, y):
    away = jnp.abs(r - y)
    return jnp.where(away < 1, away**2 / 2, away - 0.5).mean(-1)


def voltage(h):
    return h["V"] if isinstance(h, dict) else h


REGULARISED = {"voltage_regulariser": (0.5, 0.1)}
VOLTAGES = dict.fromkeys(EXAMPLES, REGULARISED) | {
    "two_alif": {**REGULARISED, "voltages": ["[0]['V']", "[1]['V']"]},
    "synapse": {**REGULARISED, "voltages": "[0]['V']"},
}

LIKE = (
    "leaky_tanh",
    "two_alif",
    "three_lif",
    "conv_lif",
    "synapse",
    "recurrent_lif",
)  # drives shaped as the activity

HOPS = ("leaky_tanh", "gru", "two_alif", "recurrent_lif", "vanilla")  # with recurrent weights
ONE_STATE = ("leaky_tanh", "three_lif", "conv_lif", "recurrent_lif", "vanilla")
TYPES = (0, 1, 0, 0)


def between_types(params):
    """Recurrent weights as means over types."""

    def averaged(w):
        types = np.array(TYPES[len(TYPES) - len(w) :])
        found = np.zeros(w.shape)
        for a in (0, 1):
            for b in (0, 1):
                of = np.ix_(types == a, types == b)
                found = jnp.asarray(found).at[of].set(w[of].mean())
        return found

    found = {k: averaged(v) if k[0] == "U" else v for k, v in params.items()}
    if "M2" in params:  # behind what comes from below
        m = params["M2"]
        found["M2"] = jnp.concatenate([m[: -m.shape[1]], averaged(m[-m.shape[1] :])])
    return found


S_TLLR = {"lambda_pre": 0.9, "lambda_post": 0.6, "alpha_pre": 0.7, "alpha_post": 0.3}


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
    "three_factor": Case("three_factor", checks.three_factor_oracle, modulated="by sample"),
    "reward_eprop": Case(
        "three_factor",
        checks.three_factor_oracle,
        lambda n: {"kappa_filter_decay": 0.7},
        lambda n: {"kappa": 0.7},
        neighbour="three_factor",
        modulated="by neuron",
    ),
    "etlp": Case(
        "etlp",
        checks.etlp_oracle,
        lambda n: {"B_list": split_projections(n), **VOLTAGES[n]},
        lambda n: {"B_list": projections(n), "voltage": (0.5, 0.1, voltage)},
        neighbour="osttp",
        target=True,
    ),
    "decolle": Case(
        "decolle",
        checks.decolle_oracle,
        lambda n: {"G_list": local_readouts(n)},
        lambda n: {"G_list": local_readouts(n), "local_loss": smooth_l1},
        neighbour="osttp",
        target=True,
    ),
    "instantaneous": Case("instantaneous", checks.instantaneous_oracle),
    "sltt": Case("sltt", checks.instantaneous_oracle),
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
    "sk_rtrl": Case(
        "sk_rtrl",
        checks.sk_rtrl_oracle,
        lambda n: {"rank": 2},
        lambda n: {"rank": 2, "slopes": _slopes(n)},
    ),
    "mdgl": Case("mdgl", checks.mdgl_oracle, cells=HOPS),
    "mdgl_filtered": Case(
        "mdgl",
        checks.mdgl_oracle,
        lambda n: {"kappa_filter_decay": 0.7},
        lambda n: {"kappa": 0.7},
        neighbour="eprop",
        cells=HOPS[:-1],
    ),
    "mdgl_types": Case(
        "mdgl",
        checks.mdgl_oracle,
        lambda n: {"types": {"two_alif": [TYPES, TYPES[1:]], "joined": TYPES[1:]}.get(n, TYPES)},
        lambda n: {"modulation": between_types},
        neighbour="mdgl",
        cells=tuple(n for n in HOPS if n != "gru"),
    ),
    "modprop": Case(
        "modprop",
        checks.modprop_oracle,
        lambda n: {"leak": 0.7, "taps": 3},
        lambda n: {"leak": 0.7, "taps": 3},
        neighbour="ottt",
        cells=ONE_STATE,
    ),
    "modprop_types": Case(
        "modprop",
        checks.modprop_oracle,
        lambda n: {"leak": LEAK, "mu": 0.5, "taps": 4, "types": TYPES[n == "joined" :]},
        lambda n: {"leak": LEAK, "mu": 0.5, "taps": 4, "modulation": between_types},
        neighbour="modprop",
        cells=tuple(n for n in ONE_STATE if n in HOPS),
    ),
    "s_tllr": Case("s_tllr", checks.s_tllr_oracle, neighbour="ottt", cells=(*LIKE, "vanilla")),
    "s_tllr_random": Case(
        "s_tllr",
        checks.s_tllr_oracle,
        lambda n: {**S_TLLR, "feedback": "random", "feedback_weights": [readout_like(n)]},
        lambda n: {
            "lambdas": (0.9, 0.6),
            "alphas": (0.7, 0.3),
            "feedback": {"o": jnp.asarray(readout_like(n))},
        },
        neighbour="ottt",
        cells=LIKE,
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


def stepwise(this, given, **signals):
    """Gradients of `update`, step by step, added up."""
    params, carry, xs, ys = given

    def one(both, at):
        state, total = both
        x, y, signals = at

        def objective(params):
            new, out = this.update(params, state, x, **signals)
            return jnp.sum(loss(out, y)), new

        found, new = jax.grad(objective, has_aux=True)(params)
        return (new, jax.tree.map(jnp.add, total, found)), None

    start = (this.init(params, carry), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(one, start, (xs, ys, signals))[0][1]


def norm(tree):
    return {k: float(jnp.linalg.norm(v)) for k, v in tree.items()}


def apart(a, b):
    """Relative distances, by parameter."""
    return {k: float(jnp.linalg.norm(a[k] - b[k]) / jnp.linalg.norm(b[k])) for k in b}


def same(a, b, rtol=1e-10):
    off = apart(a, b)
    assert max(off.values()) <= rtol, off
