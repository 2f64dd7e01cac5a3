"""Training in windows with `MultiStepData` and `vjp_method='multi-step'`: backpropagation inside a
window, eligibility traces across them, on a stream that must be remembered for some steps.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(23)
n_rec, n_windows, window, batch_size, lag = 16, 4, 5, 8, 3


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(1, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
brainstate.nn.init_all_states(model, batch_size=batch_size)
learner = braintrace.ParamDimVjpAlgorithm(model, vjp_method="multi-step")
learner.compile_graph(jnp.zeros((batch_size, 1)))
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def stream():
    xs = brainstate.random.uniform(-1, 1, (n_windows * window, batch_size, 1))
    ys = jnp.roll(xs, lag, axis=0).at[:lag].set(0.0)
    return [a.reshape(n_windows, window, batch_size, 1) for a in (xs, ys)]


def train(_):
    xs, ys = stream()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def of_window(total, slices):
        x, y = slices
        loss_of = lambda: jnp.mean((learner(braintrace.MultiStepData(x)) - y) ** 2)
        grads, loss = brainstate.transform.grad(loss_of, weights, return_value=True)()
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    grads, losses = brainstate.transform.scan(of_window, zeros, (xs, ys))
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(150))
assert losses[-10:].mean() < 0.4 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
