"""Keywords from audio-like features with deltas: events where the energy of a band grows or falls
by a threshold, as a cochlea would give them, then a recurrent LIF layer. ES-D-RTRL.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(16)
rng = np.random.default_rng(16)
n_words, n_bands, n_steps, n_rec, batch_size = 4, 12, 20, 24, 16


def features(n_samples):
    """Log energies of bands: word = which band swells first, and how the energy moves on."""
    labels = rng.integers(0, n_words, n_samples)
    time = np.arange(n_steps)[:, None, None] - rng.integers(0, 3, n_samples)[:, None]
    bands = np.arange(n_bands)
    direction, start = np.where(labels % 2 == 0, 1, -1), np.where(labels < 2, 3, 8)
    centre = (start + 0.25 * direction * time[..., 0])[..., None]
    energy = np.exp(-(((bands - centre) / 1.2) ** 2)) * np.sin(np.pi * np.clip(time / 16, 0, 1))
    return energy + 0.05 * rng.standard_normal(energy.shape), labels


def delta_events(energy, threshold=0.08):
    """Up and down events of each band, by its difference from the step before."""
    change = np.diff(energy, axis=0, prepend=energy[:1])
    return np.concatenate([change > threshold, change < -threshold], axis=-1).astype(float)


class KeywordNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        n_in = 3 * n_bands
        init = braintools.init.KaimingNormal(scale=60.0, unit=u.mA)
        no_bias = braintools.init.ZeroInit(unit=u.mA)
        self.linear = braintrace.nn.Linear(n_in + n_rec, n_rec, w_init=init, b_init=no_bias)
        self.neuron = brainpy.state.LIF(
            n_rec, tau=10.0 * u.ms, spk_fun=braintools.surrogate.Arctan(), spk_reset="hard"
        )
        self.readout = braintrace.nn.LeakyRateReadout(n_rec, n_words, tau=15.0 * u.ms)

    def update(self, x):
        self.neuron(self.linear(jnp.concatenate([x, self.neuron.get_spike()], axis=-1)))
        return self.readout(self.neuron.get_spike())


energy, words = features(96)
inputs = np.concatenate([np.maximum(energy, 0), delta_events(energy)], axis=-1)

with brainstate.environ.context(dt=1.0 * u.ms):
    model = KeywordNet()
    learner = braintrace.compile(
        model,
        braintrace.ES_D_RTRL,
        inputs[0, :batch_size],
        batch_size=batch_size,
        decay_or_rank=0.9,
    )
    optimizer = braintools.optim.Adam(1e-2, grad_clip_norm=1.0)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))

    @brainstate.transform.jit
    def train(xs, labels):
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def step_loss(x):
            logits = learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(logits, labels)
            return loss.mean(), logits

        grads, losses, logits = learner.etrace_grad(
            xs, step_fn=step_loss, has_aux=True, return_value=True
        )
        optimizer.update(grads)
        return losses.mean(), jnp.mean(logits.sum(0).argmax(-1) == labels)

    history = []
    for _ in range(12):
        for chosen in rng.permutation(96).reshape(-1, batch_size):
            history.append(train(inputs[:, chosen], words[chosen]))

losses, accuracies = np.array(history).T
assert losses[-6:].mean() < 0.7 * losses[:6].mean(), losses
assert accuracies[-6:].mean() > 0.8, accuracies
