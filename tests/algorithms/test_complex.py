"""Edits on complex states with a complex readout, against the same network in real numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import ETraceConfig
from braintrace.checks import bptt_gradient
from zoo._interpret import once

from ._rules import SUM, apart, drawn, norm, same, stepwise, windowed
from .cells import LEAK, B, I, N, O, T


def eigenvalues(p):
    size, angle = jnp.exp(-jnp.exp(p["nu"])), p["theta"]
    return size * jnp.cos(angle), size * jnp.sin(angle)


def complex_cell(leaky, layers):
    """Linear recurrent units under a readout of the real part of a complex product."""

    def cell(p, carry, x):
        *states, y = carry
        u, new = x, []
        for k, h in enumerate(states):
            h = jax.lax.complex(*eigenvalues(p)) * h + u @ (p[f"B{k}"] + 1j * p[f"D{k}"])
            new.append(h)
            u = jnp.tanh(h.real) + 1j * h.imag if layers > 1 else h
        out = (u @ (p["C"] + 1j * p["E"])).real + leaky * y
        return (*new, out), out

    return cell


def real_cell(leaky, layers):
    """The same, with a real and an imaginary state that are read together."""

    def cell(p, carry, x):
        *states, y = carry
        (a, b), new = eigenvalues(p), []
        u = jnp.concatenate([x, jnp.zeros_like(x)], -1)
        for k, (r, i) in enumerate(states):
            re, im = p[f"B{k}"], p[f"D{k}"]
            real, imag = u @ jnp.concatenate([re, -im]), u @ jnp.concatenate([im, re])
            r, i = a * r - b * i + real, b * r + a * i + imag
            new.append((r, i))
            u = jnp.concatenate([jnp.tanh(r) if layers > 1 else r, i], -1)
        out = u @ jnp.concatenate([p["C"], -p["E"]]) + leaky * y
        return (*new, out), out

    return cell


def networks(layers, leaky=LEAK):
    """The two programs with their data, which differ in the carry."""
    params = {
        "nu": 0.3 * drawn(N),
        "theta": drawn(N, seed=1),
        "C": drawn(N, O),
        "E": drawn(N, O, seed=1),
    }
    for k, size in enumerate((I, N)[:layers]):
        params |= {f"B{k}": 0.5 * drawn(size, N), f"D{k}": 0.5 * drawn(size, N, seed=1)}
    parts = [(0.3 * drawn(B, N, seed=k), 0.3 * drawn(B, N, seed=9 + k)) for k in range(layers)]
    y, xs, ys = 0.3 * drawn(B, O), drawn(T, B, I), drawn(T, B, O, seed=1)
    whole, split = (*(r + 1j * i for r, i in parts), y), (*parts, y)
    params, whole, split, xs, ys = jax.tree.map(jnp.asarray, (params, whole, split, xs, ys))
    return (
        (complex_cell(leaky, layers), (params, whole, xs, ys)),
        (real_cell(leaky, layers), (params, split, xs, ys)),
    )


B_RE, B_IM = drawn(N, O, seed=3), drawn(N, O, seed=4)
B_PARTS = np.concatenate([B_RE, -B_IM])
P_RE, P_IM = ([drawn(3, N, seed=5 + k + 2 * l) for l in range(2)] for k in range(2))
projected = [re + 1j * im for re, im in zip(P_RE, P_IM, strict=True)]
in_parts = [m for pair in zip(P_RE, P_IM, strict=True) for m in pair]

#: rule, its options for the complex network and for the real one, the number of layers.
EDITS = {
    "filter": ("eprop", {"kappa_filter_decay": 0.6}, None, 1),
    "filter of two layers": ("eprop", {"kappa_filter_decay": 0.6}, None, 2),
    "filter of the readout": ("eprop", {"kappa_filter_decay": "readout"}, None, 1),
    "random": (
        "eprop",
        {"feedback": "random", "feedback_weights": [B_RE + 1j * B_IM], "kappa_filter_decay": 0.6},
        {"feedback": "random", "feedback_weights": [B_PARTS], "kappa_filter_decay": 0.6},
        1,
    ),
    "adaptive": (
        "eprop",
        {"feedback": "adaptive", "feedback_weights": [B_RE + 1j * B_IM], "feedback_decay": 0.1},
        {"feedback": "adaptive", "feedback_weights": [B_PARTS], "feedback_decay": 0.1},
        1,
    ),
    "rflo": ("rflo", {"feedback_weights": [B_RE + 1j * B_IM]}, {"feedback_weights": [B_PARTS]}, 1),
    "targets": ("osttp", {"B_list": projected[:1]}, {"B_list": [np.hstack(in_parts[:2])]}, 1),
    "targets of two layers": (
        "osttp",
        {"B_list": projected},
        {"B_list": [np.hstack(in_parts[:2]), np.hstack(in_parts[2:])]},
        2,
    ),
    "real targets": (
        "osttp",
        {"B_list": P_RE[:1]},
        {"B_list": [np.hstack([P_RE[0], np.zeros((3, N))])]},
        1,
    ),
    "otpe": ("otpe", {"leak": LEAK}, None, 1),
    "scalar leak": (ETraceConfig(temporal_recursion="scalar_leak", decay=0.8), {}, None, 1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_complex_is_two_reals(edit):
    algorithm, options, real_options, layers = EDITS[edit]
    (cell, given), (real, real_given) = networks(layers)
    driver = {"y_target": jnp.asarray(drawn(T, B, 3))} if algorithm == "osttp" else {}

    def compiled(cell, given, algorithm, **options):
        params, carry, xs, _ = given
        return braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)

    this = compiled(cell, given, algorithm, **options)
    that = compiled(
        real, real_given, algorithm, **(options if real_options is None else real_options)
    )
    plain = compiled(real, real_given, "d_rtrl")

    @once
    def every_way(given, real_given):
        found = [windowed(this, given, w, **driver) for w in (1, 3, None)]
        found.append(stepwise(this, given, **driver))
        right = windowed(that, real_given, 1, **driver)
        return found, right, windowed(plain, real_given, 1)

    found, right, without = every_way(given, real_given)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    for got in found:
        same(got, right)
    assert max(apart(without, right).values()) > 1e-3  # control: without the edit


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("eprop", {"kappa_filter_decay": "readout"}), ("otpe", {"leak": LEAK})],
)
def test_the_readouts_own_filter_is_bptt(algorithm, options):
    """One layer without recurrence under a leaky readout: every path is kept."""
    (cell, given), _ = networks(1)
    params, carry, xs, _ = given
    this = braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)

    @once
    def every_way(*given):
        found = [windowed(this, given, w) for w in (1, 3, None)] + [stepwise(this, given)]
        plain = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry)
        return found, bptt_gradient(cell, *given, **SUM)[0], windowed(plain, given, 1)

    found, right, without = every_way(*given)
    for got in found:
        same(got, right)
    assert apart(without, right)["B0"] > 1e-2  # control: without the filter


def test_a_complex_matrix_for_a_real_readout_is_refused():
    _, (real, given) = networks(1)
    params, carry, xs, _ = given
    weights = [B_PARTS + 1j]
    with pytest.raises(braintrace.CompilationError, match="is complex"):
        braintrace.compile(
            real, "rflo", xs[0], params=params, carry=carry, feedback_weights=weights
        )
