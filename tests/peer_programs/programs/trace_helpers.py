"""The helpers of the spiking algorithms: a frozen projection, a low-pass filter, a leaky sum, a
leaky sum of gradients.
"""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

feedback = braintrace.FixedRandomFeedback(
    n_target=3, n_layer=5, key=jax.random.PRNGKey(0), init_scale=0.1
)
target = jnp.array([1.0, 0.0, -1.0])
assert feedback.B.shape == (3, 5) and jnp.allclose(feedback.project(target), target @ feedback.B)

kappa = braintrace.KappaFilter(jnp.zeros(2), 0.9)
trace = braintrace.PresynapticTrace(jnp.zeros(2), 0.5)
for _ in range(3):
    kappa.update(jnp.ones(2))
    trace.update(jnp.ones(2))
assert jnp.allclose(kappa.value, 1 - 0.9**3) and jnp.allclose(trace.value, 1.75)

acc = braintrace.GradExpon(jnp.zeros((3,)), 0.9)
acc.update(jnp.ones((3,)))
acc.update(jnp.ones((3,)))
assert jnp.allclose(acc.gradients.value, 1.9)
with brainstate.environ.context(dt=1.0 * u.ms):
    slow = braintrace.GradExpon({"w": jnp.zeros(2)}, 10.0 * u.ms)
slow.update({"w": jnp.ones(2)})
slow.update({"w": jnp.ones(2)})
assert jnp.allclose(slow.gradients.value["w"], 1 + jnp.exp(-0.1))
