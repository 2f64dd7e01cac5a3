"""RadLIF neurons (recurrent, adaptive, every neuron with trained time constants of its own) on
events like those of the Heidelberg digits: 700 channels in 35 groups, four words. D-RTRL.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(1)
rng = np.random.default_rng(1)
n_words, n_channels, n_groups, n_rec, n_steps, batch_size = 4, 700, 35, 24, 20, 16


def record(n_samples):
    """Poisson events of two formants that glide from one channel to another, a word its own way."""
    words = rng.integers(0, n_words, n_samples)
    start = np.array([[100, 500], [250, 600], [400, 150], [550, 300]])[words]
    stop = np.array([[300, 650], [100, 400], [600, 50], [350, 500]])[words]
    phase = np.linspace(0, 1, n_steps)[:, None, None] + rng.uniform(-0.1, 0.1, (n_samples, 1))
    centre = start + (stop - start) * phase + rng.normal(0, 15, (n_samples, 2))
    channels = np.arange(n_channels)
    rate = 0.02 + 0.5 * np.exp(-(((channels - centre[..., None]) / 25) ** 2)).sum(2)
    events = rng.random(rate.shape) < rate
    return events.reshape(n_steps, n_samples, n_groups, -1).sum(-1) / 10.0, words


class RadLIF(brainstate.nn.Module):
    def __init__(self, n_in):
        super().__init__()
        uniform = lambda low, high: brainstate.ParamState(
            brainstate.random.uniform(low, high, n_rec)
        )
        self.alpha, self.beta = uniform(0.8, 0.95), uniform(0.9, 0.98)
        self.a, self.b = uniform(0.0, 0.5), uniform(0.0, 0.5)
        self.feedforward = braintrace.nn.Linear(n_in, n_rec)
        self.recurrent = braintrace.nn.Linear(
            n_rec, n_rec, w_init=braintools.init.Orthogonal(scale=0.3), b_init=None
        )
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)

    def init_state(self, batch_size=None, **kwargs):
        zeros = jnp.zeros((batch_size, n_rec))
        self.u, self.w, self.s = (brainstate.HiddenState(zeros) for _ in range(3))

    def reset_state(self, batch_size=None, **kwargs):
        self.u.value = self.w.value = self.s.value = jnp.zeros((batch_size, n_rec))

    def update(self, x):
        limited = lambda param, low, high: braintrace.element_wise(
            param.value, weight_fn=lambda v: jnp.clip(v, low, high)
        )
        alpha, beta = limited(self.alpha, 0.8, 0.96), limited(self.beta, 0.9, 0.99)
        a, b = limited(self.a, -0.5, 0.5), limited(self.b, 0.0, 1.0)
        u, w, s = self.u.value, self.w.value, self.s.value
        self.w.value = beta * w + (1 - beta) * a * u + b * s
        current = self.feedforward(x) + self.recurrent(s) - w
        self.u.value = alpha * u + (1 - alpha) * 5.0 * current - s
        self.s.value = self.spike(self.u.value - 1.0)
        return self.s.value


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = RadLIF(n_groups)
        self.readout = braintrace.nn.Linear(n_rec, n_words)

    def update(self, x):
        return self.readout(self.hidden(x))


model = Net()
events, words = record(96)
learner = braintrace.compile(model, braintrace.D_RTRL, events[0, :batch_size], batch_size=16)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
first = weights.to_dict_values()


@brainstate.transform.jit
def train(xs, labels):
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels

    def step_loss(x):
        out = learner(x)
        return cross_entropy(out, labels).mean(), out

    options = {"has_aux": True, "return_value": True}
    grads, losses, outs = learner.etrace_grad(xs, step_fn=step_loss, **options)
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    predicted = jax.nn.softmax(outs).sum(0).argmax(-1)
    return losses.mean(), jnp.mean(predicted == labels)


history = []
for _ in range(8):
    for chosen in rng.permutation(96).reshape(-1, batch_size):
        history.append(train(jnp.asarray(events[:, chosen]), jnp.asarray(words[chosen])))
losses, accuracies = np.array(history).T
assert losses[-6:].mean() < 0.75 * losses[:6].mean(), losses
assert accuracies[-6:].mean() > 0.7, accuracies
moved = lambda name: jnp.abs(weights[("hidden", name)].value - first[("hidden", name)]).max()
assert min(moved(name) for name in ("alpha", "beta", "a", "b")) > 1e-3, "time constants learn"
