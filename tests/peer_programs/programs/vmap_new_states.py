"""Mini-batches by the states' own mapping: a model and a learner of one sample are made inside
`vmap_new_states`, `brainstate.nn.Vmap` calls them for a batch, as in cognitive tasks.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(22)
n_rec, n_steps, batch_size = 16, 12, 10


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(2, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def update(self, x):
        return self.out(self.rnn(x))


def trials():
    """Which of two pulses was larger?"""
    sizes = brainstate.random.uniform(-1, 1, (2, batch_size))
    time = jnp.arange(n_steps)[:, None]
    pulse = jnp.where(time == 1, sizes[0], 0.0) + jnp.where(time == 6, sizes[1], 0.0)
    go = jnp.broadcast_to((time >= n_steps - 3).astype(float), pulse.shape)
    return jnp.stack([pulse, go], axis=-1), (sizes[0] > sizes[1]).astype(float)[:, None]


model = Net()
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
late = (jnp.arange(n_steps) >= n_steps - 3).astype(float)


@brainstate.transform.jit
def train(xs, ys):
    learner = braintrace.D_RTRL(model)

    @brainstate.transform.vmap_new_states(state_tag="new", axis_size=batch_size)
    def make():
        brainstate.nn.init_all_states(model)
        learner.compile_graph(xs[0, 0])

    make()
    mapped = brainstate.nn.Vmap(learner, vmap_states="new")

    def step_loss(x):
        logits = mapped(x)
        return braintools.metric.sigmoid_binary_cross_entropy(logits, ys).mean(), logits

    def step(total, slices):
        x, counts = slices
        grad_of = brainstate.transform.grad(step_loss, weights, has_aux=True, return_value=True)
        grads, loss, logits = grad_of(x)
        total = jax.tree.map(lambda a, g: a + counts * g, total, grads)
        return total, (counts * loss, logits)

    zeros = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    grads, (losses, logits) = brainstate.transform.scan(step, zeros, (xs, late))
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.sum() / late.sum(), jnp.mean((logits[-1] > 0) == ys)


history = [train(*trials()) for _ in range(200)]
losses, accuracies = jnp.array(history).T
assert losses[-15:].mean() < 0.7 * losses[:15].mean(), (losses[:15].mean(), losses[-15:].mean())
assert accuracies[-15:].mean() > 0.8, accuracies[-15:]
