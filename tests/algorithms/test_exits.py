"""What others read of a group, however they read it: joined with others in one product, scaled,
turned, in several places.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import sigmoid

import braintrace
from braintrace import checks
from braintrace.checks import Layer
from zoo._interpret import once, run_once

from ._rules import CASES, SUM, apart, drawn, learner, norm, oracle, same, stepwise, windowed
from .cells import EXAMPLES, LEAK, B, I, N, O, T, data, dense, fire, lif, lif_move, stack

ALL = set(CASES) - {"pp_prop", "ostl_feedforward"}
OTHERS = {
    "vanilla": ALL - {"ottt", "f_otpe", "ostl_recurrent", "mdgl_filtered"},
    "joined": ALL - {"ostl_recurrent", "modprop", "modprop_types"},
    "joined_lstm": {"eprop", "eprop_random", "osttp", "osttp_exact", "rflo"},
    "populations": {"eprop", "eprop_random", "eprop_adaptive", "osttp", "osttp_exact", "rflo"},
    "forward_populations": {"otpe", "f_otpe", "ottt"},
}
#: A quantity of the driver's, and the same of `update`.
RATE = (0.3, 0.7)


def every_way(this, driver, *given):
    """The gradients of a sequence in windows of 1, 3 and the default size, and of `update`."""
    found = [windowed(this, given, window, **driver) for window in (1, 3, None)]
    return [*found, stepwise(this, given, **driver)]


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n, cases in OTHERS.items() for c in sorted(cases)]
)
def test_other_activities_than_a_state_that_remembers(name, case):
    """Of several groups in one product, or of a state that keeps nothing of the old one."""
    this, right = learner(case, name), oracle(case, name)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    run = partial(every_way, this, CASES[case].driver(name))
    for got in run_once(run, *data(name)):
        same(got, right)
    neighbour = oracle(CASES[case].neighbour, name)
    assert max(apart(neighbour, right).values()) > 1e-3  # control: what passing it by would give


JOINS = {
    "stack": lambda u, v: jnp.stack([u, v], -1).reshape(B, 2 * N),
    "pad": lambda u, v: jnp.pad(u, ((0, 0), (0, N))) + jnp.pad(v, ((0, 0), (N, 0))),
    "turned": lambda u, v: jnp.concatenate([v, 2 * u], -1)[:, ::-1],
    "product": lambda u, v: jnp.concatenate([u * v, v], -1),
}


@pytest.mark.parametrize("way", JOINS)
@pytest.mark.parametrize("case", ["eprop", "eprop_random"])
def test_ways_to_join_two_activities(case, way):
    """The readout is filtered, and fed back to, as it reads them."""
    layer = EXAMPLES["forward_populations"].cell.layers[0]
    out = lambda h: JOINS[way](fire(h["v"]), jnp.tanh(h["a"]))
    cell = stack(Layer(layer.drive, layer.move, out))
    given = data("forward_populations")
    params, carry, xs, _ = given
    chosen, name = CASES[case], "forward_populations"
    options, of_oracle = chosen.options(name), chosen.oracle_options(name)
    this = braintrace.compile(cell, "eprop", xs[0], params=params, carry=carry, **options)

    @once
    def both(*given):
        right = checks.eprop_oracle(cell, *given, **SUM, **of_oracle)[0]
        plain = checks.layered_oracle(cell, *given, **SUM)[0]
        return right, plain, every_way(this, {}, *given)

    right, plain, found = both(*given)
    for got in found:
        same(got, right)
    assert apart(plain, right)["Wv"] > 1e-3  # control: without the edit


def rated(cell, given):
    """The firing-rate term by the oracle and by the learner, and the gradient without it."""
    params, carry, xs, _ = given
    rate = {"firing_rate": RATE}
    this = braintrace.compile(cell, "eprop", xs[0], params=params, carry=carry, **rate)

    @once
    def both(*given):
        right, plain = (
            checks.eprop_oracle(cell, *given, **SUM, kappa=0.0, **o)[0] for o in (rate, {})
        )
        return right, plain, every_way(this, {}, *given)

    right, plain, (*windows, steps) = both(*given)
    for got in windows:
        same(got, right)
    # a single step takes the mean of the samples, the driver weighs them as the losses
    same(jax.tree.map(lambda s, p: p + B * (s - p), steps, plain), right, 1e-9)
    return right, plain


@pytest.mark.parametrize("name", ["populations", "joined"])
def test_the_firing_rate_of_groups_that_are_read_together(name):
    right, plain = rated(EXAMPLES[name].cell, data(name))
    off = apart(plain, right)
    assert min(v for k, v in off.items() if k != "o") > 1e-3, off  # control: without the term


READS = {
    "z @ M": lambda z, M: z @ M,
    "(2 z) @ (M / 2)": lambda z, M: (2 * z) @ (M / 2),
    "z and flip(z)": lambda z, M: z @ M / 2 + jnp.flip(z, -1) @ jnp.flip(M, 0) / 2,
    "halves": lambda z, M: z[:, :2] @ M[:2] + z[:, 2:] @ M[2:],
    "[z, -z]": lambda z, M: jnp.concatenate([z, -z], -1) @ jnp.concatenate([M, -M]) / 2,
    "transposed": lambda z, M: (M.T @ z.T).T,
}


def read_as(read):
    """Two layers, the second of which reads the first as `read` says."""
    upper = Layer(lambda p, z, own, one: read(z, p["M"]), lif_move, fire)
    return stack(lif("1", recurrent=False), upper, leak=None)


def two_layers():
    params = {"W1": drawn(I, N), "b1": drawn(N), "M": drawn(N, N), "o": drawn(N, O)}
    carry = (0.3 * drawn(B, N), 0.3 * drawn(B, N, seed=1))
    xs, ys = 1.5 * drawn(T, B, I), drawn(T, B, O)
    return jax.tree.map(jnp.asarray, (params, carry, xs, ys))


@pytest.mark.parametrize("way", READS)
def test_a_firing_rate_is_that_of_the_activity_however_it_is_read(way):
    right, _ = rated(read_as(READS[way]), two_layers())
    of_2z = read_as(READS["z @ M"])
    lower = Layer(of_2z.layers[0].drive, lif_move, lambda v: 2 * fire(v))
    doubled = stack(lower, Layer(lambda p, z, own, one: z @ p["M"] / 2, lif_move, fire), leak=None)
    wrong = checks.eprop_oracle(doubled, *two_layers(), **SUM, kappa=0.0, firing_rate=RATE)[0]
    assert apart(wrong, right)["W1"] > 1e-3  # control: the rate of 2 z is another one


EDITED = [("osttp", way) for way in READS]
EDITED += [("otpe", way) for way in READS if way != "transposed"]  # a drive of another shape


@pytest.mark.parametrize(("case", "way"), EDITED)
def test_edits_at_the_activity_however_it_is_read(case, way):
    given = two_layers()
    params, carry, xs, _ = given
    B_list = [drawn(3, N), drawn(3, N, seed=1)]
    options = {"osttp": {"B_list": B_list}, "otpe": {"leak": LEAK}}[case]
    driver = {"y_target": jnp.asarray(drawn(T, B, 3))} if case == "osttp" else {}
    this = braintrace.compile(
        read_as(READS[way]), case, xs[0], params=params, carry=carry, **options
    )
    by = {"osttp": checks.osttp_oracle, "otpe": checks.otpe_oracle}[case]

    @once
    def both(*given):
        right = by(read_as(READS["z @ M"]), *given, **SUM, **options, **driver)[0]
        plain = checks.layered_oracle(read_as(READS["z @ M"]), *given, **SUM)[0]
        return right, plain, every_way(this, driver, *given)

    right, plain, found = both(*given)
    for got in found:
        same(got, right)
    assert apart(plain, right)["W1"] > 1e-3  # control: without the edit


def compiled(cell, algorithm, carry=None, params=None, **options):
    weights = {"W": jnp.ones((I, N)), "o": jnp.ones((N, O)), "u": jnp.ones((N, O))}
    given = {"params": params or weights, "carry": carry or (jnp.zeros((B, N)),)}
    return braintrace.compile(cell, algorithm, jnp.zeros((B, I)), **given, **options)


def spikes_and_potentials(p, c, x):
    v = LEAK * c[0] + x @ p["W"]
    return (v,), fire(v) @ p["o"] + v @ p["u"]


def nothing_read(p, c, x):
    v = LEAK * c[0] + x @ p["W"]
    return (v,), v


def unread(p, c, x):
    return (LEAK * c[0] + x @ p["W"],), x @ p["W"] @ p["o"]


def oscillator(p, c, x):
    """Two variables, of which the one that is read moves a step later than the drive."""
    q, v = c
    v = v - 0.1 * (q + x @ p["W"])
    return (q + 0.1 * c[1], v), (q + 0.1 * c[1]) @ p["o"]


def complex_neurons(p, c, x):
    h = (0.8 + 0.1j) * c[0] + x @ p["W"]
    return (h,), (h @ (p["o"] + 1j * p["u"])).real


COMPLEX = {"carry": (jnp.zeros((B, N), complex),)}
PAIR = {"carry": (jnp.zeros((B, N)),) * 2}
REFUSED = [
    (spikes_and_potentials, "eprop", {"firing_rate": RATE}, "A state group has no one activity."),
    (spikes_and_potentials, "osttp", {"feedback_key": 0}, "A state group has no one activity."),
    (spikes_and_potentials, "otpe", {"leak": LEAK}, "A state group has no one activity."),
    (spikes_and_potentials, "s_tllr", {}, "A state group has no one activity."),
    (unread, "s_tllr", {}, "The trace of the slope is one of a layer's activity"),
    (nothing_read, "eprop", {"firing_rate": RATE}, "firing_rate acts on what others read"),
    (nothing_read, "osttp", {"feedback_key": 0}, "A projected target acts on what others read"),
    (spikes_and_potentials, "mdgl", {"types": [0] * N}, "The types do not fit the model."),
    (oscillator, "otpe", {"leak": LEAK, "mode": "approx", **PAIR}, "A drive does not reach"),
    (complex_neurons, "eprop", {"firing_rate": RATE, **COMPLEX}, "A firing rate is the mean of"),
    (complex_neurons, "otpe", {"leak": LEAK, "mode": "approx", **COMPLEX}, "The rule keeps dz/dy"),
]


@pytest.mark.parametrize(("cell", "algorithm", "options", "message"), REFUSED)
def test_what_has_no_meaning_is_refused(cell, algorithm, options, message):
    with pytest.raises(braintrace.CompilationError) as error:
        compiled(cell, algorithm, **options)
    assert str(error.value).startswith(message), error.value
    compiled(cell, "d_rtrl", carry=options.get("carry"))  # control


def test_a_readout_of_two_activities_keeps_each_apart():
    """Spikes and potentials of one group: the filter is of what each readout reads."""
    params = {"W": drawn(I, N), "o": drawn(N, O), "u": drawn(N, O, seed=1)}
    given = jax.tree.map(jnp.asarray, (params, (drawn(B, N),), drawn(T, B, I), drawn(T, B, O)))
    this = compiled(spikes_and_potentials, "eprop", params=given[0], kappa_filter_decay=0.7)
    layer = Layer(
        dense(recurrent=False, bias=False),
        lambda p, h, y: LEAK * h + y,
        lambda v: jnp.concatenate([fire(v), v], -1),
    )
    cell = checks.LayeredCell((layer,), lambda p, z: z[:, :N] @ p["o"] + z[:, N:] @ p["u"])

    @once
    def both(*given):
        right, plain = (
            checks.eprop_oracle(cell, *given, **SUM, kappa=kappa)[0] for kappa in (0.7, 0.0)
        )
        return right, plain, every_way(this, {}, *given)

    right, plain, found = both(*given)
    for got in found:
        same(got, right)
    assert apart(plain, right)["W"] > 1e-3  # control: without the filter


#: Where a bias stands: beside the drive, behind a nonlinearity, in a threshold, times the state.
MOVES = {
    "b after the leak": (lambda p, h, y: LEAK * h + y, lambda p, v: fire(v)),
    "inside tanh": (lambda p, h, y: jnp.tanh(LEAK * h + y), lambda p, v: v),
    "tau": (lambda p, h, y: sigmoid(p["s"]) * h + y, lambda p, v: fire(v)),
    "threshold": (lambda p, h, y: LEAK * h + y - 0.3 * fire(h - p["s"]), lambda p, v: fire(v)),
    "current behind tanh": (lambda p, h, y: LEAK * h + jnp.tanh(y) + p["s"], lambda p, v: fire(v)),
}


@pytest.mark.parametrize("way", MOVES)
def test_bias_traces_are_those_of_drives(way):
    move, out = MOVES[way]
    cell = stack(Layer(dense(), move, partial(out, None)), leak=None)
    params = {
        "W": drawn(I, N),
        "U": drawn(N, N),
        "b": drawn(N),
        "o": drawn(N, O),
        "s": 0.5 * drawn(N, seed=2),
    }
    given = jax.tree.map(
        jnp.asarray, (params, (0.3 * drawn(B, N),), 1.5 * drawn(T, B, I), drawn(T, B, O))
    )
    options = {"leak": 0.7, "bias_trace": True}
    this = compiled(cell, "ottt", carry=given[1], params=given[0], **options)

    @once
    def both(*given):
        right, plain = (
            checks.ottt_oracle(cell, *given, **SUM, leak=0.7, bias_trace=b)[0]
            for b in (True, False)
        )
        return right, plain, every_way(this, {}, *given)

    right, plain, found = both(*given)
    for got in found:
        same(
            {k: got[k] for k in got if norm(right)[k]},
            {k: v for k, v in right.items() if norm(right)[k]},
        )
    off = apart(plain, right)
    assert off["b"] > 1e-2  # control: without the bias's trace
    np.testing.assert_allclose(plain["s"], right["s"])  # the neuron's own parameter has none
