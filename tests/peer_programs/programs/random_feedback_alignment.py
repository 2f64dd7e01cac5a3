"""Learning with a fixed random matrix in place of the readout's transpose: RFLO, e-prop with random
and with adaptive feedback all learn a limit cycle.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import close

n_rec, n_steps = 24, 40
time = jnp.arange(n_steps)
xs = jnp.stack([jnp.sin(0.3 * time), jnp.cos(0.3 * time)], -1)[:, None]
ys = jnp.stack([jnp.sin(0.3 * time - 1), jnp.sin(0.6 * time)], -1)[:, None]


class LeakyRNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(0.3 * brainstate.random.randn(2 + n_rec, n_rec))
        self.out = braintrace.nn.Linear(n_rec, 2)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.h.value = jnp.zeros((batch_size, n_rec))

    def update(self, x):
        drive = braintrace.matmul(jnp.concatenate([x, self.h.value], -1), self.w.value)
        self.h.value = 0.7 * self.h.value + 0.3 * jnp.tanh(drive)
        return self.out(self.h.value)


def run(algorithm, **options):
    brainstate.random.seed(19)
    model = LeakyRNN()
    learner = braintrace.compile(model, algorithm, xs[0], batch_size=1, **options)
    optimizer = braintools.optim.Adam(1e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    step_loss = lambda x, y: jnp.mean((learner(x) - y) ** 2)
    first = learner.etrace_grad(xs, ys, step_fn=step_loss)

    def train(_):
        brainstate.nn.reset_all_states(model, batch_size=1)
        learner.reset_state(batch_size=1)
        grads, losses = learner.etrace_grad(xs, ys, step_fn=step_loss, return_value=True)
        optimizer.update(grads)
        return losses.mean()

    return first, brainstate.transform.for_loop(train, jnp.arange(200))


key = jax.random.PRNGKey(0)
true, _ = run(braintrace.D_RTRL)
cases = {
    "rflo": (braintrace.RFLO, {"random_feedback_key": key}),
    "random": (braintrace.EProp, {"feedback": "random", "random_feedback_key": key}),
    "adaptive": (braintrace.EProp, {"feedback": "adaptive", "random_feedback_key": key}),
}
found = {name: run(algorithm, **options) for name, (algorithm, options) in cases.items()}
of_w = lambda gradients: {"w": gradients["w",]}
others = [name for name, (first, _) in found.items() if not close(of_w(first), of_w(true), 1e-2)]
assert others == list(cases), "each has a signal of its own"
falls = {name: losses[-5:].mean() / losses[:5].mean() for name, (_, losses) in found.items()}
assert max(falls.values()) < 0.5, falls
