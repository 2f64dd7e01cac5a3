"""The SNN page: recurrent LIF neurons with units, a leaky readout, ES-D-RTRL mapped over samples,
an Adam update a sequence.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(31)


class LIF_SNN(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out, tau_mem=20.0 * u.ms, tau_out=20.0 * u.ms):
        super().__init__()
        self.linear = braintrace.nn.Linear(
            n_in + n_rec,
            n_rec,
            w_init=braintools.init.KaimingNormal(scale=50.0, unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.neuron = brainpy.state.LIF(
            n_rec,
            tau=tau_mem,
            R=1.0 * u.ohm,
            V_th=0.1 * u.mV,
            V_reset=0.0 * u.mV,
            V_rest=0.0 * u.mV,
            spk_fun=braintools.surrogate.ReluGrad(),
            spk_reset="soft",
        )
        self.readout = braintrace.nn.LeakyRateReadout(
            n_rec, n_out, tau=tau_out, w_init=braintools.init.KaimingNormal()
        )

    def update(self, spike_input):
        rec_spk = self.neuron.get_spike()
        x = jnp.concatenate([spike_input, rec_spk], axis=-1)
        self.neuron(self.linear(x))
        return self.readout(self.neuron())


n_updates, n_steps, batch_size, n_in, n_out = 30, 12, 8, 12, 4
labels = jnp.arange(batch_size, dtype=jnp.int32) % n_out
channel_class = jnp.arange(n_in) * n_out // n_in
active = labels[:, None] == channel_class[None, :]
input_batches = brainstate.random.bernoulli(
    jnp.where(active, 0.6, 0.0), size=(n_updates, n_steps, batch_size, n_in)
)
input_batches = input_batches.astype(jnp.float32)
target_batches = jnp.broadcast_to(labels, (n_updates, batch_size))

with brainstate.environ.context(dt=1.0 * u.ms):
    brainstate.random.seed(37)
    model = LIF_SNN(n_in, 16, n_out)
    opt = braintools.optim.Adam(1e-2)
    weights = model.states(brainstate.ParamState)
    opt.register_trainable_weights(weights)
    learner = braintrace.compile(
        model,
        braintrace.ES_D_RTRL,
        input_batches[0, 0],
        batch_size=batch_size,
        vmap=True,
        decay_or_rank=0.5,
    )

    @brainstate.transform.jit
    def train_step(inputs, targets):
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def loss_fn(inp):
            output = learner(inp)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(
                output, targets
            ).mean()
            return loss, output

        def scan_step(previous_grads, inp):
            grad_fn = brainstate.transform.grad(loss_fn, weights, has_aux=True, return_value=True)
            current_grads, current_loss, output = grad_fn(inp)
            next_grads = jax.tree.map(
                lambda total, current: total + current, previous_grads, current_grads
            )
            return next_grads, (current_loss, output)

        zero_grads = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
        grads, (step_losses, outputs) = brainstate.transform.scan(scan_step, zero_grads, inputs)
        grads = brainstate.nn.clip_grad_norm(grads, 1.0)
        opt.update(grads)
        predictions = jnp.argmax(jnp.sum(outputs, axis=0), axis=-1)
        return step_losses.mean(), jnp.mean(predictions == targets)

    losses, accuracies = brainstate.transform.for_loop(train_step, input_batches, target_batches)

assert bool(jnp.all(jnp.isfinite(losses)))
assert losses[-3:].mean() < 0.6 * losses[:3].mean(), losses
assert accuracies[-3:].mean() > 0.5, accuracies
