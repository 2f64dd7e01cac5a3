"""Factorised traces behind a normalisation whose input can be silent: the report says so, and what
it says to do helps.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import bptt_gradient
from zoo import CASES

T, B, I, N, O = 20, 3, 8, 10, 3
RNG = np.random.default_rng(0)
PARAMS = {
    "W": jnp.asarray(RNG.standard_normal((I, N)) / np.sqrt(I)),
    "R": jnp.asarray(RNG.standard_normal((N, O)) / 4),
}
SILENT = RNG.random((T, B, 1)) < 0.5  # whole steps without an input
XS = jnp.asarray((RNG.random((T, B, I)) < 0.3) * SILENT * 1.0)
YS = jnp.asarray(RNG.standard_normal((T, B, O)))
CARRY = jnp.zeros((B, N))


def layer_norm(u, epsilon=1e-6):
    apart = u - u.mean(-1, keepdims=True)
    return apart * jax.lax.rsqrt((apart**2).mean(-1, keepdims=True) + epsilon)


def cell_of(normalise, of_input=lambda x: x):
    def cell(params, V, x):
        V = 0.9 * V + normalise(of_input(x) @ params["W"])
        return V, jnp.tanh(V) @ params["R"]

    return cell


def loss(out, y):
    return jnp.sum((out - y) ** 2, -1)


def learner_of(cell, algorithm, **options):
    return braintrace.compile(cell, algorithm, XS[0], params=PARAMS, carry=CARRY, **options)


def ratio(cell, algorithm, window=None, **options):
    """The norm of W's gradient, relative to that of BPTT, and their cosine."""
    learner = learner_of(cell, algorithm, **options)
    given = PARAMS, learner.init(PARAMS, CARRY), XS, YS
    online = learner.etrace_grad(*given, loss_fn=loss, window=window)[0]["W"]
    right = bptt_gradient(cell, PARAMS, CARRY, XS, YS, loss_fn=loss)[0]["W"]
    norms = jnp.linalg.norm(online), jnp.linalg.norm(right)
    return float(norms[0] / norms[1]), float(jnp.vdot(online, right) / norms[0] / norms[1])


FACTORISED = {
    "pp_prop": {"decay_or_rank": 0.9},
    "ottt": {"leak": 0.9},
    "ostl_feedforward": {"decay_or_rank": 0.9},
}


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("algorithm", ["pp_prop", "ottt"])
def test_gradients_that_are_much_too_large_and_what_to_do(algorithm, window):
    options = FACTORISED[algorithm]
    far, cosine = ratio(cell_of(layer_norm), algorithm, window, **options)
    assert far > 50 and cosine > 0.9
    near, cosine = ratio(cell_of(lambda u: layer_norm(u, 0.1)), algorithm, window, **options)
    assert 0.5 < near < 2 and cosine > 0.95
    near, cosine = ratio(cell_of(lambda u: u, layer_norm), algorithm, window, **options)
    assert 0.5 < near < 2 and cosine > 0.95
    near, cosine = ratio(cell_of(layer_norm), "d_rtrl", window)
    assert 0.8 < near < 1.25 and cosine > 0.95


def warnings_of(learner):
    """The lines of the report, which the records repeat."""
    lines = [line for line in str(learner.report).splitlines() if line.startswith("WARNING")]
    records = [r for r in learner.report.diagnostics if r.kind == "relation_normalised"]
    assert bool(records) == bool(lines) and all(r.level == "warning" for r in records)
    return lines


NORMALISED = {
    "rsqrt": layer_norm,
    "deviation": lambda u: (u - u.mean(-1, keepdims=True)) / (u.std(-1, keepdims=True) + 1e-5),
    "root mean square": lambda u: u / jnp.sqrt((u * u).mean(-1, keepdims=True) + 1e-6),
    "inner product": lambda u: u * jax.lax.rsqrt(jnp.einsum("bi,bi->b", u, u) + 1e-6)[:, None],
    "norm": lambda u: u / (jnp.linalg.norm(u, axis=-1, keepdims=True) + 1e-6),
    "largest": lambda u: u / (jnp.abs(u).max(-1, keepdims=True) + 1e-6),
    "power": lambda u: u * ((u**2).sum(-1, keepdims=True) + 1e-6) ** -0.5,
    "with gain": lambda u: jnp.tanh(2.0 * layer_norm(u) + 0.1),
}
ORDINARY = {
    "nothing": lambda u: u,
    "softsign": lambda u: u / (1 + jnp.abs(u)),
    "softmax": jax.nn.softmax,
    "root of its own": lambda u: u * jax.lax.rsqrt(1 + u**2),
    "swish": jax.nn.silu,
    "by a constant": lambda u: u / jnp.sqrt(jnp.arange(1.0, N + 1)),
}


@pytest.mark.parametrize("algorithm", FACTORISED)
def test_the_report_names_a_normalisation(algorithm):
    for name, normalise in NORMALISED.items():
        learner = learner_of(cell_of(normalise), algorithm, **FACTORISED[algorithm])
        [line] = warnings_of(learner)
        assert "['W']: a normalisation (test_normalisations.py" in line, name
        assert "'d_rtrl'" in line and "epsilon" in line
    for normalise in ORDINARY.values():
        assert not warnings_of(learner_of(cell_of(normalise), algorithm, **FACTORISED[algorithm]))
    assert not warnings_of(
        learner_of(cell_of(lambda u: u, layer_norm), algorithm, **FACTORISED[algorithm])
    )


@pytest.mark.parametrize("algorithm", ["d_rtrl", "ostl_feedforward"])
def test_traces_of_each_parameter_have_no_warning(algorithm):
    assert not warnings_of(learner_of(cell_of(layer_norm), algorithm))


def test_a_normalisation_of_the_output_is_none_between_a_weight_and_its_state():
    def cell(params, V, x):
        V = 0.9 * V + x @ params["W"]
        return V, layer_norm(V) @ params["R"]

    assert not warnings_of(learner_of(cell, "pp_prop", decay_or_rank=0.9))


def test_of_all_cells_of_the_zoo_those_with_a_normalisation_have_a_warning():
    found = set()
    for name, case in CASES.items():
        params, carry, xs, _ = case.make(jax.random.key(0), 1, case.B)
        x = jax.tree.map(lambda v: v[0], xs)
        given = {"params": params, "carry": carry, "decay_or_rank": 0.9, **case.compiled}
        try:
            learner = braintrace.compile(case.cell, "pp_prop", x, **given)
        except braintrace.CompilationError:
            continue
        if any(row.warnings for row in learner.graph.parameters):
            found.add(name)
    layer_norms = {f"layer_norm{of}" for of in ("", "_with_leak", "_of_equinox", "_of_haiku")}
    assert found == {"batch_norm", "batch_norm_in_training", *layer_norms}


def test_check_gradients_says_what_to_do():
    for normalise, said in ((layer_norm, True), (lambda u: 1e-4 * u, False)):
        learner = learner_of(cell_of(normalise), "pp_prop", decay_or_rank=0.9)
        state = learner.init(PARAMS, CARRY)
        report = learner.check_gradients(PARAMS, state, XS, YS, loss_fn=loss)
        assert ("a normalisation (test_normalisations.py" in str(report)) == said
        assert (report["['W']"].norm > 50 * report["['W']"].reference_norm) == said


def test_layers_of_brainstate():
    class Network(brainstate.nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.linear, self.norm = brainstate.nn.Linear(I, N), norm

        def init_state(self, batch_size=None):
            self.V = brainstate.HiddenState(jnp.zeros((batch_size, N)))

        def update(self, x):
            self.V.value = 0.9 * self.V.value + self.norm(self.linear(x))
            return self.V.value

    for norm in (brainstate.nn.LayerNorm(N), brainstate.nn.RMSNorm(N)):
        options = {"batch_size": B, "decay_or_rank": 0.9}
        learner = braintrace.compile(Network(norm), "pp_prop", XS[0], **options)
        [line] = warnings_of(learner)
        assert "linear.weight.weight" in line
    learner = braintrace.compile(Network(brainstate.nn.Tanh()), "pp_prop", XS[0], **options)
    assert not warnings_of(learner)
