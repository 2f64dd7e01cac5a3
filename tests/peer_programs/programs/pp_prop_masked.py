"""The pp-prop page: recurrent spiking units, a warm-up mask, `etrace_evolve` for evaluation,
clipped Adam updates.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(11)


class RecurrentLIF(brainstate.nn.Module):
    def __init__(self, n_in=3, n_rec=8, n_out=1):
        super().__init__()
        self.n_rec = n_rec
        self.w_in = brainstate.ParamState(0.35 * brainstate.random.randn(n_in, n_rec))
        self.w_rec = brainstate.ParamState(0.12 * brainstate.random.randn(n_rec, n_rec))
        self.w_out = brainstate.ParamState(0.2 * brainstate.random.randn(n_rec, n_out))
        self.surrogate = braintools.surrogate.ReluGrad()

    def init_state(self, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros(self.n_rec))
        self.spike = brainstate.HiddenState(jnp.zeros(self.n_rec))

    def reset_state(self, **kwargs):
        self.v.value = jnp.zeros_like(self.v.value)
        self.spike.value = jnp.zeros_like(self.spike.value)

    def update(self, x):
        current = braintrace.matmul(x, self.w_in.value) + braintrace.matmul(
            self.spike.value, self.w_rec.value
        )
        voltage = 0.85 * self.v.value + current - self.spike.value
        spike = self.surrogate(voltage - 0.5)
        self.v.value = voltage
        self.spike.value = spike
        return voltage @ self.w_out.value


n_steps = 24
inputs = brainstate.random.bernoulli(0.3, size=(n_steps, 3)).astype(jnp.float32)
targets = jnp.full((n_steps, 1), 0.4)
loss_mask = (jnp.arange(n_steps) >= 6).astype(jnp.float32)

model = RecurrentLIF()
brainstate.nn.init_all_states(model)
learner = braintrace.compile(model, braintrace.pp_prop, inputs[0], decay_or_rank=0.5)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(learner.param_states)


def reset_sequence():
    brainstate.nn.reset_all_states(model)
    learner.reset_state()


def step_loss(x, target):
    prediction = learner(x)
    return jnp.mean((prediction - target) ** 2)


def masked_objective():
    reset_sequence()
    outputs = learner.etrace_evolve(inputs, return_outputs=True)
    losses = jnp.mean((outputs - targets) ** 2, axis=1)
    return jnp.sum(losses * loss_mask) / jnp.sum(loss_mask)


def train_epoch(_):
    reset_sequence()
    grads, objective = learner.etrace_grad(
        inputs,
        targets,
        step_fn=step_loss,
        mask=loss_mask,
        reduction="mean",
        loss_output="scalar",
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return objective


initial_loss = masked_objective()
training_losses = brainstate.transform.for_loop(train_epoch, jnp.arange(25))
final_loss = masked_objective()

assert bool(jnp.all(jnp.isfinite(training_losses)))
assert jnp.allclose(training_losses[0], initial_loss, rtol=1e-5), (
    "the driver's loss is the masked mean"
)
assert final_loss < 0.7 * initial_loss, (initial_loss, final_loss)
assert len(learner.graph.hidden_param_op_relations) == 2
