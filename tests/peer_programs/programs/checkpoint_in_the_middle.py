"""An experiment that is stopped and goes on: parameters and the optimizer's state are saved in the
middle, loaded into a new model, and the second half is the one of the run that was not stopped.
"""

import tempfile
from pathlib import Path

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

n_steps, batch_size, half = 10, 8, 25
brainstate.random.seed(20)
all_xs = brainstate.random.randn(2 * half, n_steps, batch_size, 2)
all_ys = jnp.tanh(jnp.cumsum(all_xs[..., :1] - all_xs[..., 1:], axis=1) / 2)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.ValinaRNNCell(2, 16, activation="tanh")
        self.out = braintrace.nn.Linear(16, 1)

    def update(self, x):
        return self.out(self.rnn(x))


class Experiment:
    def __init__(self, seed):
        brainstate.random.seed(seed)
        self.model = Net()
        self.learner = braintrace.compile(
            self.model, braintrace.D_RTRL, all_xs[0, 0], batch_size=batch_size
        )
        self.weights = self.model.states(brainstate.ParamState)
        self.optimizer = braintools.optim.Adam(1e-2)
        self.optimizer.register_trainable_weights(self.weights)

    def update(self, xs, ys):
        brainstate.nn.reset_all_states(self.model, batch_size=batch_size)
        self.learner.reset_state(batch_size=batch_size)
        grads, losses = self.learner.etrace_grad(
            xs, ys, step_fn=lambda x, y: jnp.mean((self.learner(x) - y) ** 2), return_value=True
        )
        self.optimizer.update(grads)
        return losses.mean()

    def run(self, xs, ys):
        return brainstate.transform.for_loop(self.update, xs, ys)

    def state(self):
        moments = jax.tree.leaves(self.optimizer.opt_state.value)
        weights = {".".join(map(str, path)): w.value for path, w in self.weights.items()}
        return {"weights": weights, "moments": {str(i): m for i, m in enumerate(moments)}}

    def save(self, path):
        braintools.file.msgpack_save(path, self.state())

    def load(self, path):
        saved = braintools.file.msgpack_load(path, self.state())
        for key, weight in self.weights.items():
            weight.value = saved["weights"][".".join(map(str, key))]
        structure = jax.tree.structure(self.optimizer.opt_state.value)
        moments = [saved["moments"][str(i)] for i in range(structure.num_leaves)]
        self.optimizer.opt_state.value = jax.tree.unflatten(structure, moments)


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "middle.msgpack"
    first = Experiment(seed=1)
    before = first.run(all_xs[:half], all_ys[:half])
    first.save(path)
    after = first.run(all_xs[half:], all_ys[half:])

    second = Experiment(seed=2)
    second.load(path)
    again = second.run(all_xs[half:], all_ys[half:])

assert after[-5:].mean() < 0.5 * before[:5].mean(), (before[:5], after[-5:])
assert jnp.allclose(again, after, rtol=1e-4), "the run goes on as if it had not stopped"
