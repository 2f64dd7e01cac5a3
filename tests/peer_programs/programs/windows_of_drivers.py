"""Windows of the sequence drivers: a multi-step learner is trained on noisy sums in windows of five
steps, after a warm-up, with a mask; its step function returns one loss for each step.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(0)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(2, 12)
        self.out = braintrace.nn.Linear(12, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
xs = brainstate.random.randn(30, 4, 2)
ys = 0.5 * jnp.cumsum(xs.sum(-1, keepdims=True), axis=0) / 5
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=4, vjp_method="multi-step")
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(learner.param_states)
mask = jnp.where(jnp.arange(20) < 5, 0.0, 1.0)


def losses_of_a_window(x, y):
    assert x.shape == (5, 4, 2) and y.shape == (5, 4, 1)
    return jnp.mean((learner(braintrace.MultiStepData(x)) - y) ** 2, axis=(1, 2))


@brainstate.transform.jit
def train():
    brainstate.nn.reset_all_states(model, batch_size=4)
    learner.reset_state(batch_size=4)
    learner.etrace_evolve(xs[:10], chunk_size=5)
    grads, losses = learner.etrace_grad(
        xs[10:],
        ys[10:],
        step_fn=losses_of_a_window,
        mask=mask,
        chunk_size=5,
        loss_output="masked",
        return_value=True,
    )
    optimizer.update(grads)
    return losses


losses = [train() for _ in range(60)]
assert losses[0].shape == (20,) and not losses[0][:5].any()
assert losses[-1].sum() < 0.5 * losses[0].sum()
