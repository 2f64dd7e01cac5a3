"""Working memory in generalised integrate-and-fire neurons: a fast and a slow after-current and a
moving threshold hold the sample of a delayed match-to-sample task. D-RTRL.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(5)
n_rec, batch_size, shown, delay, answer = 24, 16, 3, 4, 3
n_steps = 2 * shown + delay + answer


class GIF(brainstate.nn.Module):
    """Membrane v, threshold theta and after-currents i1, i2 (Mihalas and Niebur), discretised."""

    def __init__(self, n_in, n_rec):
        super().__init__()
        self.weight = braintrace.nn.Linear(
            n_in + n_rec, n_rec, w_init=braintools.init.KaimingNormal(scale=3.0)
        )
        self.jump = brainstate.ParamState(jnp.full(n_rec, 0.6))  # of the slow current at a spike
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)
        self.n_rec = n_rec

    def init_state(self, batch_size=None, **kwargs):
        new = lambda value: brainstate.HiddenState(jnp.full((batch_size, self.n_rec), value))
        self.v, self.theta, self.i1, self.i2 = new(0.0), new(1.0), new(0.0), new(0.0)

    def reset_state(self, batch_size=None, **kwargs):
        for state in (self.v, self.theta, self.i1, self.i2):
            state.value = jnp.zeros((batch_size, self.n_rec))
        self.theta.value = jnp.ones((batch_size, self.n_rec))

    def spikes(self):
        return self.spike(self.v.value - self.theta.value)

    def update(self, x):
        z = self.spikes()
        jump = braintrace.element_wise(self.jump.value)
        self.i1.value = 0.5 * self.i1.value - 0.3 * z
        self.i2.value = 0.95 * self.i2.value + jump * z
        drive = self.weight(jnp.concatenate([x, z], axis=-1))
        v = 0.8 * self.v.value + 0.4 * drive + self.i1.value + 0.2 * self.i2.value - z
        self.theta.value = 1.0 + 0.8 * (self.theta.value - 1.0) + 0.1 * z
        self.v.value = v
        return jnp.concatenate([self.spikes(), self.i2.value], axis=-1)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.gif = GIF(5, n_rec)
        self.out = braintrace.nn.Linear(2 * n_rec, 2)

    def update(self, x):
        return self.out(self.gif(x))


def trials():
    sample, test = brainstate.random.randint(0, 2, (2, batch_size))
    time = jnp.arange(n_steps)[:, None, None]
    during = lambda start, length: ((time >= start) & (time < start + length)).astype(float)
    cue = during(0, shown) * jax.nn.one_hot(sample, 2)
    probe = during(shown + delay, shown) * jax.nn.one_hot(test, 2)
    go = jnp.broadcast_to(during(n_steps - answer, answer), (n_steps, batch_size, 1))
    return jnp.concatenate([cue, probe, go], axis=-1), (sample == test).astype(int)


model = Net()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 5)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) >= n_steps - answer).astype(float)


def train(_):
    xs, match = trials()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x):
        out = learner(x)
        loss = braintools.metric.softmax_cross_entropy_with_integer_labels(out, match)
        return loss.mean(), out

    grads, losses, outs = learner.etrace_grad(
        xs, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-answer:].mean(), jnp.mean(outs[-1].argmax(-1) == match)


losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(250))
assert losses[-20:].mean() < 0.6 * losses[:20].mean(), (losses[:20].mean(), losses[-20:].mean())
assert accuracies[-20:].mean() > 0.75, accuracies[-20:]
