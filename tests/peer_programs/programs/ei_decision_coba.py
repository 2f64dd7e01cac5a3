"""Two-choice decisions of an excitatory-inhibitory network: LIF neurons with conductance synapses
(exponential, reversal potentials, mV, ms and mS) whose evidence is two Poisson trains. ES-D-RTRL.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace

brainstate.random.seed(4)
n_exc, n_inh, n_in, n_steps, batch_size = 24, 6, 20, 25, 12


class Population(brainstate.nn.Module):
    """E and I neurons in one group; the sign of a synapse is in its reversal potential."""

    def __init__(self):
        super().__init__()
        n = n_exc + n_inh
        self.neurons = brainpy.state.LIF(
            n,
            R=1.0 * u.kohm,
            tau=15.0 * u.ms,
            V_rest=-60.0 * u.mV,
            V_th=-50.0 * u.mV,
            V_reset=-60.0 * u.mV,
            V_initializer=braintools.init.Constant(-60.0 * u.mV),
            spk_fun=braintools.surrogate.ReluGrad(alpha=0.3, width=2.0),
        )

        def synapses(n_pre, mean, reversal, tau):
            draw = braintools.init.Uniform(0.0, 2.0 * mean, unit=u.mS)
            return brainpy.state.AlignPostProj(
                comm=braintrace.nn.Linear(n_pre, n, w_init=draw, b_init=None),
                syn=brainpy.state.Expon.desc(n, tau=tau),
                out=brainpy.state.COBA.desc(E=reversal),
                post=self.neurons,
            )

        self.evidence = synapses(n_in, 0.03, 0.0 * u.mV, 5.0 * u.ms)
        self.excitation = synapses(n_exc, 0.01, 0.0 * u.mV, 5.0 * u.ms)
        self.inhibition = synapses(n_inh, 0.05, -80.0 * u.mV, 10.0 * u.ms)

    def update(self, spikes):
        own = self.neurons.get_spike()
        self.evidence(spikes)
        self.excitation(own[..., :n_exc])
        self.inhibition(own[..., n_exc:])
        self.neurons(0.0 * u.mA)
        return self.neurons.get_spike()


class DecisionNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.population = Population()
        self.readout = braintrace.nn.LeakyRateReadout(n_exc, 2, tau=20.0 * u.ms)

    def update(self, spikes):
        return self.readout(self.population(spikes)[..., :n_exc])


def trial():
    side = brainstate.random.randint(0, 2, (batch_size,))
    coherence = jnp.where(side == 0, 0.5, -0.5)[:, None]
    prefers = jnp.where(jnp.arange(n_in) < n_in // 2, 1.0, -1.0)
    rate = jnp.broadcast_to(0.25 * (1 + coherence * prefers), (n_steps, batch_size, n_in))
    return brainstate.random.bernoulli(rate, size=rate.shape).astype(float), side


with brainstate.environ.context(dt=1.0 * u.ms):
    model = DecisionNet()
    example = jnp.zeros((batch_size, n_in))
    learner = braintrace.compile(
        model, braintrace.ES_D_RTRL, example, batch_size=batch_size, decay_or_rank=0.9
    )
    weights = model.states(brainstate.ParamState)
    optimizer = braintools.optim.Adam(5e-3)
    optimizer.register_trainable_weights(weights)
    decide = (jnp.arange(n_steps) >= 10).astype(float)

    def train(_):
        spikes, side = trial()
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def step_loss(x):
            logits = learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(logits, side)
            return loss.mean(), (logits, model.population.neurons.get_spike().mean())

        grads, losses, (logits, rate) = learner.etrace_grad(
            spikes, step_fn=step_loss, mask=decide, has_aux=True, return_value=True
        )
        optimizer.update(grads)
        for path, weight in weights.items():  # conductances are not negative
            if path[0] == "population":
                weight.value = {"weight": u.math.maximum(weight.value["weight"], 0.0 * u.mS)}
        return losses[10:].mean(), jnp.mean(logits[-1].argmax(-1) == side), rate.mean()

    losses, accuracies, rates = brainstate.transform.for_loop(train, jnp.arange(60))

assert losses[-10:].mean() < 0.8 * losses[:5].mean(), (losses[:5].mean(), losses[-10:].mean())
assert accuracies[-10:].mean() > 0.8, accuracies[-10:]
assert 0.01 < rates[-10:].mean() < 0.5, "the network is neither silent nor saturated"
assert u.get_unit(model.population.inhibition.comm.weight.value["weight"]) == u.mS
