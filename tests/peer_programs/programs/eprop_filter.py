"""The e-prop page: a filtered trace, its coordinate, the trace of a weight, and what the filter
does to the gradient.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import close

brainstate.random.seed(21)


class SmallEPropSNN(brainstate.nn.Module):
    def __init__(self, n_in=2, n_rec=6):
        super().__init__()
        self.n_rec = n_rec
        self.w_in = brainstate.ParamState(0.6 * brainstate.random.randn(n_in, n_rec))
        self.w_rec = brainstate.ParamState(0.1 * brainstate.random.randn(n_rec, n_rec))
        self.w_out = brainstate.ParamState(0.2 * brainstate.random.randn(n_rec, 1))
        self.surrogate = braintools.surrogate.ReluGrad()

    def init_state(self, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros(self.n_rec))
        self.z = brainstate.HiddenState(jnp.zeros(self.n_rec))

    def reset_state(self, **kwargs):
        self.v.value = jnp.zeros_like(self.v.value)
        self.z.value = jnp.zeros_like(self.z.value)

    def update(self, x):
        drive = braintrace.matmul(x, self.w_in.value) + braintrace.matmul(
            self.z.value, self.w_rec.value
        )
        voltage = 0.9 * self.v.value + drive - self.z.value
        spike = self.surrogate(voltage - 0.45)
        self.v.value = voltage
        self.z.value = spike
        return spike @ self.w_out.value


inputs = brainstate.random.bernoulli(0.35, size=(16, 2)).astype(jnp.float32)
targets = jnp.full((16, 1), 0.25)
mask = (jnp.arange(16) >= 4).astype(jnp.float32)
model = SmallEPropSNN()
brainstate.nn.init_all_states(model)


def run(algorithm, **options):
    learner = braintrace.compile(model, algorithm, inputs[0], **options)

    def loss_step(x, target):
        return jnp.mean((learner(x) - target) ** 2)

    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, loss = learner.etrace_grad(
        inputs, targets, step_fn=loss_step, mask=mask, loss_output="scalar", return_value=True
    )
    return learner, grads, loss


learner, grads, loss = run(braintrace.EProp, feedback="symmetric", kappa_filter_decay=0.8)
gradient_norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
trace_norm = jnp.sqrt(
    sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(learner.get_etrace_of(model.w_rec)))
)
assert (learner.config.trace_filter, learner.config.kappa, learner.config.learning_signal) == (
    "kappa",
    0.8,
    "symmetric",
)
assert bool(jnp.isfinite(gradient_norm) & (gradient_norm > 0)) and bool(
    jnp.isfinite(trace_norm) & (trace_norm > 0)
)

_, unfiltered, _ = run(braintrace.EProp, kappa_filter_decay=0.0)
_, plain, _ = run(braintrace.D_RTRL)
assert close(unfiltered, plain), "without a filter and with symmetric feedback, e-prop is D-RTRL"
assert not close(grads, plain, 1e-3), "the filter is seen"
_, random, _ = run("eprop", feedback="random", random_feedback_key=jax.random.PRNGKey(0))
assert not close(random, plain, 1e-3)
assert close({"w_out": random["w_out",]}, {"w_out": plain["w_out",]}), (
    "the readout learns from its true error"
)
