"""The RNN page: a GRU on the copying task; loss at the recall steps only, online and by BPTT."""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(1)
n_symbols, n_copy, delay, batch_size = 3, 2, 2, 16
length = 2 * n_copy + delay


def sample_batch():
    symbols = brainstate.random.randint(0, n_symbols, (n_copy, batch_size))
    tokens = jnp.full((length, batch_size), n_symbols)
    tokens = tokens.at[:n_copy].set(symbols).at[n_copy + delay :].set(n_symbols + 1)
    return jax.nn.one_hot(tokens, n_symbols + 2), symbols


class GRUNet(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn(x))


model = GRUNet(n_symbols + 2, 24, n_symbols)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
xs, _ = sample_batch()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=batch_size)


def step_loss(x, target):
    return braintools.metric.softmax_cross_entropy_with_integer_labels(learner(x), target).mean()


@brainstate.transform.jit
def train(_):
    xs, symbols = sample_batch()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    learner.etrace_evolve(xs[: n_copy + delay])
    grads, losses = learner.etrace_grad(
        xs[n_copy + delay :], symbols, step_fn=step_loss, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(80))
chance = jnp.log(n_symbols)
assert losses[:5].mean() > 0.9 * chance
assert losses[-10:].mean() < 0.8 * chance, losses[-10:].mean()
