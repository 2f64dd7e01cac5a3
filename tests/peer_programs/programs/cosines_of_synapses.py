"""How close an online gradient is to backpropagation through time over four models of synapses,
while they learn to follow two of their inputs: the cosine over all parameters.
"""

import brainpy.state as bp
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, cosine

brainstate.random.seed(9)
n_in, n_rec, n_out, n_steps, batch_size = 8, 10, 2, 15, 4
zero = braintools.init.ZeroInit(unit=u.mA)
spike = braintools.surrogate.ReluGrad(alpha=0.3, width=2.0)
membrane = {"R": 1.0 * u.ohm, "V_rest": 0.0 * u.mV, "V_reset": 0.0 * u.mV, "spk_fun": spike}


def lif():
    return bp.LIF(n_rec, tau=10.0 * u.ms, V_th=1.0 * u.mV, **membrane)


def alif():
    return bp.ALIF(n_rec, tau=10.0 * u.ms, tau_a=40.0 * u.ms, V_th=1.0 * u.mV, **membrane)


def expon():
    return bp.Expon.desc(n_rec, tau=6.0 * u.ms, g_initializer=zero)


def weights():
    rows = jnp.where(jnp.arange(n_in + n_rec) < n_in, 1.2, 0.3)[:, None]
    draw = brainstate.random.randn(n_in + n_rec, n_rec)
    return braintrace.nn.Linear(n_in + n_rec, n_rec, w_init=rows * draw * u.mA, b_init=zero)


class Synaptic(brainstate.nn.Module):
    """Between them stand synapses, aligned with the neurons that they reach."""

    def __init__(self, synapse, neuron, depression=None):
        super().__init__()
        self.neuron, self.depression = neuron, depression
        self.projection = bp.AlignPostProj(
            comm=weights(), syn=synapse, out=bp.CUBA.desc(scale=1.0), post=neuron
        )

    def update(self, x):
        spikes = jnp.concatenate([x, self.neuron.get_spike()], axis=-1)
        if self.depression is not None:
            spikes = self.depression(spikes)
        self.projection(spikes)
        self.neuron(0.0 * u.mA)
        return self.neuron.get_spike()


models = {
    "Expon": lambda: Synaptic(expon(), lif()),
    "Expon, ALIF": lambda: Synaptic(expon(), alif()),
    "Expon, STD": lambda: Synaptic(expon(), lif(), bp.STD(n_in + n_rec, U=0.2)),
    "Expon, STP": lambda: Synaptic(expon(), lif(), bp.STP(n_in + n_rec, U=0.5)),
}


class Net(brainstate.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.hidden = make()
        self.readout = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.readout(self.hidden(x))


def measure(make, xs, ys):
    model = Net(make)
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=batch_size)
    optimizer = braintools.optim.Adam(2e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    misfit = lambda call, x, y: jnp.mean((call(x) - y) ** 2)

    def epoch(_):
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)
        through_time = bptt(model, lambda x, y: misfit(model, x, y), xs, ys)
        grads, losses = learner.etrace_grad(
            xs, ys, step_fn=lambda x, y: misfit(learner, x, y), return_value=True
        )
        optimizer.update(grads)
        return losses.mean(), cosine(grads, through_time)

    return brainstate.transform.for_loop(epoch, jnp.arange(20))


with brainstate.environ.context(dt=1.0 * u.ms):
    xs = brainstate.random.bernoulli(0.3, size=(n_steps, batch_size, n_in)).astype(float)
    ys = xs[..., :n_out] * 0.5 + 0.2
    cosines, losses = {}, {}
    for name, make in models.items():
        losses[name], found = measure(make, xs, ys)
        cosines[name] = float(found.mean())
        print(f"{name:24s} cosine {cosines[name]:.4f}")

assert all(value > 0.95 for value in cosines.values()), cosines
assert all(loss[-1] < 0.9 * loss[0] for loss in losses.values()), losses
