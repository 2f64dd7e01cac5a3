"""Kuramoto oscillators on a sparse connectome: natural frequencies and CSR coupling weights are
fitted to recorded phases. A pair couples through sin(b - a), two products with one sparse weight.
"""

import brainevent
import brainstate
import braintools
import jax.numpy as jnp
import numpy as np

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(7)
rng = np.random.default_rng(7)
n, dt, n_steps = 8, 0.1, 60
links = (rng.random((n, n)) < 0.35) & ~np.eye(n, dtype=bool)
sparse = brainevent.CSR.fromdense(jnp.asarray(np.where(links, rng.uniform(0.2, 1.0, (n, n)), 0.0)))


class Kuramoto(brainstate.nn.Module):
    def __init__(self, coupling, omega):
        super().__init__()
        self.coupling = brainstate.ParamState(coupling)
        self.omega = brainstate.ParamState(omega)

    def init_state(self, **kwargs):
        self.phase = brainstate.HiddenState(jnp.linspace(0.0, 3.0, n))

    def reset_state(self, **kwargs):
        self.phase.value = jnp.linspace(0.0, 3.0, n)

    def update(self, noise):
        phase = self.phase.value
        into = lambda x: braintrace.sparse_matmul(x, self.coupling.value, sparse_mat=sparse)
        pull = into(jnp.sin(phase)) * jnp.cos(phase) - into(jnp.cos(phase)) * jnp.sin(phase)
        omega = braintrace.element_wise(self.omega.value)
        self.phase.value = phase + dt * (omega + pull) + noise
        return self.phase.value


noise = 0.05 * brainstate.random.randn(n_steps, n)
truth = Kuramoto(sparse.data, jnp.linspace(0.5, 2.0, n))
brainstate.nn.init_all_states(truth)
recorded = brainstate.transform.for_loop(truth, noise)

model = Kuramoto(jnp.full_like(sparse.data, 0.3), jnp.ones(n))
learner = braintrace.compile(model, braintrace.D_RTRL, noise[0])
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(weights)


def misfit(phase, observed):
    """One minus the cosine of the difference: phases are on a circle."""
    return jnp.mean(1 - jnp.cos(phase - observed))


expected = bptt(model, lambda x, y: misfit(model(x), y), noise[:1], recorded[:1])
found = learner.etrace_grad(
    noise[:1], recorded[:1], step_fn=lambda x, y: misfit(learner(x), y), reduction="sum"
)
assert close(found, expected), "both uses of the coupling count"


def epoch(_):
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses = learner.etrace_grad(
        noise, recorded, step_fn=lambda x, y: misfit(learner(x), y), return_value=True
    )
    optimizer.update(grads)
    return losses.mean()


order = lambda phases: jnp.abs(jnp.exp(1j * phases).mean(-1))  # of synchrony
before = jnp.abs(model.omega.value - truth.omega.value).mean()
losses = brainstate.transform.for_loop(epoch, jnp.arange(100))
after = jnp.abs(model.omega.value - truth.omega.value).mean()
assert losses[-5:].mean() < 0.1 * losses[0], (losses[0], losses[-5:])
assert after < 0.8 * before, (before, after)
brainstate.nn.reset_all_states(model)
replayed = brainstate.transform.for_loop(model, noise)
assert jnp.abs(order(replayed) - order(recorded)).mean() < 0.1, "as synchronous as the recording"
