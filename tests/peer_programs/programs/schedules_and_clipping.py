"""Learning rates that warm up and fall along a cosine, decay of weights and clipped gradients: a
leaky network learns to filter two noisy sines, with the optimizers of braintools. D-RTRL.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

n_steps, n_updates = 40, 60
time = jnp.arange(n_steps)[:, None]
clean = jnp.concatenate([jnp.sin(time / 5), jnp.cos(time / 8)], axis=1)


class Filter(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(0.5 * brainstate.random.randn(2, 16))
        self.leak = brainstate.ParamState(jnp.linspace(-1.0, 2.0, 16))
        self.out = braintrace.nn.Linear(16, 2)

    def init_state(self, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(16))

    def reset_state(self, **kwargs):
        self.h.value = jnp.zeros(16)

    def update(self, x):
        leak = braintrace.element_wise(self.leak.value, weight_fn=jax.nn.sigmoid)
        drive = jnp.tanh(braintrace.matmul(x, self.w.value))
        self.h.value = leak * self.h.value + (1 - leak) * drive
        return self.out(self.h.value)


def experiment(make_optimizer):
    brainstate.random.seed(18)
    model = Filter()
    schedule = braintools.optim.WarmupCosineSchedule(
        3e-2, warmup_steps=10, total_steps=n_updates, warmup_start_lr=1e-3, eta_min=1e-4
    )
    optimizer = make_optimizer(schedule)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    learner = braintrace.compile(model, "d_rtrl", clean[0])

    def train(_):
        brainstate.nn.reset_all_states(model)
        learner.reset_state()
        noisy = clean + 0.3 * brainstate.random.randn(*clean.shape)
        grads, losses = learner.etrace_grad(
            noisy, clean, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
        )
        rate = optimizer.current_lr
        optimizer.update(grads)
        schedule.step()
        return losses.mean(), rate

    return brainstate.transform.for_loop(train, jnp.arange(n_updates))


losses, rates = experiment(
    lambda lr: braintools.optim.AdamW(lr, weight_decay=1e-3, grad_clip_norm=1.0)
)
assert losses[-5:].mean() < 0.4 * losses[:5].mean(), losses
assert rates[1] < rates[9] and rates[-1] < 0.1 * rates.max(), rates

losses, _ = experiment(lambda lr: braintools.optim.RMSprop(lr, grad_clip_value=0.5))
assert losses[-5:].mean() < 0.4 * losses[:5].mean(), losses
