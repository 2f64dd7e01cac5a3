"""A model of mixed parts: layers of brainstate and of braintrace chained by `in_size`, `out_size`,
bare `ParamState`s beside them, an embedding of the context that says which channel counts.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(31)
n_steps, batch_size, n_contexts = 12, 16, 2


class LeakyLayer(brainstate.nn.Module):
    def __init__(self, in_size, out_size):
        super().__init__()
        self.in_size, self.out_size = in_size, out_size
        n_in, n_out = self.in_size[-1], self.out_size[-1]
        self.weight = brainstate.ParamState(
            brainstate.random.randn(n_in + n_out, n_out) / jnp.sqrt(n_in + n_out)
        )
        self.bias = brainstate.ParamState(jnp.zeros(n_out))
        self.leak = brainstate.ParamState(jnp.linspace(-2.0, 2.0, n_out))

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, *self.out_size)))

    def reset_state(self, batch_size=None, **kwargs):
        self.h.value = jnp.zeros((batch_size, *self.out_size))

    def update(self, x):
        both = jnp.concatenate([x, self.h.value], axis=-1)
        leak = braintrace.element_wise(self.leak.value, weight_fn=jax.nn.sigmoid)
        drive = jnp.tanh(braintrace.matmul(both, self.weight.value, self.bias.value))
        self.h.value = leak * self.h.value + (1 - leak) * drive
        return self.h.value


class ContextNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.context = braintrace.nn.Embedding(n_contexts, 6)
        self.encoder = braintrace.nn.Linear(2 + 6, 16)
        self.norm = brainstate.nn.LayerNorm(self.encoder.out_size)
        self.leaky = LeakyLayer(self.norm.out_size, 20)
        self.gru = braintrace.nn.GRUCell(self.leaky.out_size, 12)
        self.decoder = braintrace.nn.Linear(self.gru.out_size, 1)

    def update(self, x, context):
        coded = jnp.concatenate([x, self.context(context)], axis=-1)
        h = self.leaky(jax.nn.relu(self.norm(self.encoder(coded))))
        return self.decoder(self.gru(h))


def trials():
    """The sign of the summed evidence of the channel that the context names."""
    context = brainstate.random.randint(0, n_contexts, (batch_size,))
    evidence = brainstate.random.uniform(-1, 1, (batch_size, 2))
    xs = evidence + 0.3 * brainstate.random.randn(n_steps, batch_size, 2)
    named = jnp.take_along_axis(evidence, context[:, None], axis=-1)
    return xs, jnp.broadcast_to(context, (n_steps, batch_size)), (named > 0).astype(float)


model = ContextNet()
xs, contexts, _ = trials()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], contexts[0], batch_size=batch_size)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
mask = (jnp.arange(n_steps) >= n_steps - 4).astype(float)


def train(_):
    xs, contexts, label = trials()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x, context):
        logit = learner(x, context)
        loss = braintools.metric.sigmoid_binary_cross_entropy(logit, label).mean()
        return loss, jnp.mean((logit > 0) == label)

    grads, losses, right = learner.etrace_grad(
        xs, contexts, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-4:].mean(), right[-4:].mean()


losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(150))
assert losses[-15:].mean() < 0.7 * losses[:10].mean(), (losses[:10].mean(), losses[-15:].mean())
assert accuracies[-15:].mean() > 0.75, accuracies[-15:]
