"""Layers whose weights, inputs and biases carry a unit: what the same layer gives in plain values,
in the unit that the product has; gradients and traces included.
"""

import brainevent
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import nn

T, B = 3, 2
MATRIX = np.array([[0.0, 1.0, 0.0, 2.0], [3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 5.0]])


def valued(unit, seed):
    """An initialiser: the same values for every unit."""

    def draw(shape, **_):
        return jnp.asarray(np.random.default_rng(seed).standard_normal(shape)) * unit

    return draw


def conv(name, size, **options):
    kind = getattr(nn, name)
    return size, lambda w, b: kind(size, 2, kernel_size=2, w_init=w, b_init=b, **options)


def sparse(kind):
    def make(w, b):
        return nn.SparseLinear(kind.fromdense(jnp.asarray(MATRIX) * u.get_unit(w((1,)))), b_init=b)

    return (3,), make


def sign(w, b):
    return nn.SignedWLinear(3, 4, w_init=w, w_sign=jnp.asarray(np.sign(MATRIX - 0.5)))


LINE, PLANE, SPACE = (4, 2), (3, 3, 2), (2, 3, 2, 2)
MASK = jnp.asarray(np.arange(2 * 2 * 2).reshape(2, 2, 2) % 3 > 0, float)

#: name -> (shape of x, layer of initialisers of weight and bias)
LAYERS = {
    "Conv1d": conv("Conv1d", LINE),
    "Conv1d, channels first, mask": conv("Conv1d", LINE[::-1], channel_first=True, w_mask=MASK),
    "Conv2d": conv("Conv2d", PLANE),
    "Conv2d, groups and stride": conv("Conv2d", PLANE, groups=2, stride=2, padding="VALID"),
    "Conv3d": conv("Conv3d", SPACE),
    "ScaledWSConv1d": conv("ScaledWSConv1d", LINE),
    "ScaledWSConv2d": conv("ScaledWSConv2d", PLANE),
    "ScaledWSConv3d": conv("ScaledWSConv3d", SPACE, ws_gain=False),
    "ConvTranspose1d": conv("ConvTranspose1d", LINE, stride=2),
    "ConvTranspose2d": conv("ConvTranspose2d", PLANE),
    "ConvTranspose3d": conv("ConvTranspose3d", SPACE),
    "Linear": ((3,), lambda w, b: nn.Linear(3, 4, w_init=w, b_init=b)),
    "ScaledWSLinear": ((3,), lambda w, b: nn.ScaledWSLinear(3, 4, w_init=w, b_init=b)),
    "ScaledWSLinear, mask": (
        (3,),
        lambda w, b: nn.ScaledWSLinear(
            3, 4, w_init=w, b_init=b, ws_gain=False, w_mask=jnp.array([[1.0], [0.0], [1.0]])
        ),
    ),
    "SignedWLinear": ((3,), lambda w, b: nn.SignedWLinear(3, 4, w_init=w)),
    "SignedWLinear, signs": ((3,), sign),
    "GroupedLinear": ((2, 3), lambda w, b: nn.GroupedLinear(2, 3, 4, w_init=w, b_init=b)),
    "AllToAll": ((3,), lambda w, b: nn.AllToAll(3, 4, w_init=w, b_init=b)),
    "OneToOne": ((3,), lambda w, b: nn.OneToOne(3, w_init=w, b_init=b)),
    "SparseLinear, brainunit.CSR": sparse(u.sparse.CSR),
    "SparseLinear, brainunit.CSC": sparse(u.sparse.CSC),
    "SparseLinear, brainunit.COO": sparse(u.sparse.COO),
    "SparseLinear, brainevent.CSR": sparse(brainevent.CSR),
    "SparseLinear, brainevent.CSC": sparse(brainevent.CSC),
}
#: units of weight and x
UNITS = {"weight": (u.mA, 1), "input": (1, u.mV), "both": (u.siemens, u.mV)}


class Network(brainstate.nn.Module):
    """A layer that drives leaky neurons with a squashed current."""

    def __init__(self, name, of_weight=1, of_x=1):
        super().__init__()
        self.shape, make = LAYERS[name]
        self.of_x, self.of_y = of_x, of_weight * of_x
        self.layer = make(valued(of_weight, 1), valued(self.of_y, 2))
        x = jnp.zeros((B, *self.shape)) * of_x
        self.h = brainstate.HiddenState(jnp.zeros_like(u.get_mantissa(self.layer(x))))

    def init_state(self, batch_size=None, **_):
        self.h.value = jnp.zeros_like(self.h.value)

    def update(self, x):
        y = u.math.asarray(self.layer(x * self.of_x) / self.of_y)
        self.h.value = 0.8 * self.h.value + jnp.tanh(u.get_mantissa(y))
        return self.h.value


def data(name):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((T, B, *LAYERS[name][0])))


def learned(name, units, xs):
    """The gradient and the traces, each parameter certified exact."""
    model = Network(name, *units)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    assert all(row.exactness == "exact" for row in learner.graph.parameters)
    gradient = learner.etrace_grad(xs, step_fn=lambda x: (learner(x) ** 2).sum())
    return jax.tree.leaves(gradient), jax.tree.leaves(learner.etrace.value)


def through_time(name, xs):
    """BPTT in plain values. With brainevent's matrices: the weight gradient of some products of
    `brainunit.sparse` is wrong in some versions of JAX (known_problems.md).
    """
    model = Network(name.replace("brainunit.COO", "brainunit.CSR").replace("unit.", "event."))

    def total():
        h, losses = jnp.zeros_like(model.h.value), []
        for x in xs:
            h = 0.8 * h + jnp.tanh(model.layer(x))
            losses.append((h**2).sum())
        return sum(losses) / len(xs)

    states = model.layer.states(brainstate.ParamState)
    return jax.tree.leaves(brainstate.transform.grad(total, states)())


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", LAYERS)
def test_values_are_those_without_units(name, units):
    plain, united = Network(name), Network(name, *UNITS[units])
    for x in (data(name)[0], data(name)[0, 0]):
        want, got = plain.layer(x), united.layer(x * united.of_x)
        assert u.get_unit(got) == u.get_unit(1 * united.of_y)
        np.testing.assert_allclose(u.get_mantissa(got), want, rtol=1e-12, atol=1e-12)
        assert float(jnp.abs(want).max()) > 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_and_traces_are_those_without_units(name):
    xs = data(name)
    plain, traces = learned(name, (), xs)
    got, moved = learned(name, UNITS["both"], xs)
    for a, b in zip([*got, *moved], [*plain, *traces], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    for a, b in zip(got, through_time(name, xs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_the_traces_matter():
    xs = data("Conv1d")
    alone = [through_time("Conv1d", x[None])[1] for x in xs]
    assert float(jnp.abs(sum(alone) / T - through_time("Conv1d", xs)[1]).max()) > 1e-2


def test_a_bias_of_another_unit_is_refused():
    for name, shape in (("Conv1d", LINE), ("ScaledWSConv2d", PLANE), ("ConvTranspose1d", LINE)):
        kind = getattr(nn, name)
        layer = kind(shape, 2, kernel_size=2, w_init=valued(u.mA, 1), b_init=valued(u.mV, 2))
        with pytest.raises(u.UnitMismatchError):
            layer(jnp.ones((B, *shape)))
    layer = nn.ScaledWSLinear(3, 4, w_init=valued(u.mA, 1), b_init=valued(u.mV, 2))
    with pytest.raises(u.UnitMismatchError):
        layer(jnp.ones((B, 3)))


@pytest.mark.parametrize("kind", [nn.LeakyRateReadout, nn.LeakySpikeReadout])
def test_readouts_hold_their_state_in_the_unit_of_the_weight(kind):
    def run(unit):
        threshold = {"V_th": 0.5 * unit} if kind is nn.LeakySpikeReadout else {}
        with brainstate.environ.context(dt=1.0):
            readout = kind(3, 2, tau=5.0, w_init=valued(unit, 1), **threshold)
        readout.init_state(B)
        xs = jnp.asarray(np.random.default_rng(0).standard_normal((T, B, 3)))
        outs = [readout(x) for x in xs]
        (state,) = readout.states(brainstate.HiddenState).values()
        return outs, state.value

    plain, potential = run(1)
    united, held = run(u.mV)
    assert u.get_unit(held) == u.mV
    np.testing.assert_allclose(u.get_mantissa(held), potential, rtol=1e-12)
    for a, b in zip(united, plain, strict=True):
        np.testing.assert_allclose(u.get_mantissa(a), b, rtol=1e-12)
    assert float(jnp.abs(jnp.stack(plain)).max()) > 0.1
