"""The operators page: what each operator computes, batched and not, with units and with functions
of the weight.
"""

import brainevent
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

key = jax.random.PRNGKey(0)
x, w, b = jax.random.normal(key, (4, 3)), jax.random.normal(key, (3, 5)), jnp.arange(5.0)

assert jnp.allclose(braintrace.matmul(x, w), x @ w) and braintrace.matmul(x[0], w).shape == (5,)
assert jnp.allclose(braintrace.matmul(x, w, bias=b), x @ w + b)
assert jnp.allclose(
    braintrace.matmul(x, w, b, weight_fn=jnp.abs, bias_fn=jnp.exp), x @ jnp.abs(w) + jnp.exp(b)
)

gate = jnp.array([0.5, -0.3, 0.8, 0.1])
assert jnp.allclose(braintrace.element_wise(gate), gate)
assert jnp.allclose(braintrace.element_wise(gate, weight_fn=jax.nn.sigmoid), jax.nn.sigmoid(gate))

x_1d, kernel_1d = jax.random.normal(key, (2, 16, 3)), jax.random.normal(key, (4, 3, 8))
y = braintrace.conv(
    x_1d, kernel_1d, strides=(1,), padding="SAME", dimension_numbers=("NWC", "WIO", "NWC")
)
expected = jax.lax.conv_general_dilated(
    x_1d, kernel_1d, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
)
assert y.shape == (2, 16, 8) and jnp.allclose(y, expected)

B, A = jax.random.normal(key, (6, 2)), jax.random.normal(key, (2, 4))
x_lora = jax.random.normal(key, (8, 6))
assert jnp.allclose(braintrace.lora_matmul(x_lora, B, A, alpha=2.0), 2 * x_lora @ B @ A)

sparse_mat = brainevent.CSR.fromdense(jnp.where(jnp.arange(12).reshape(3, 4) % 3 == 0, 1.5, 0.0))
assert jnp.allclose(
    braintrace.sparse_matmul(x, sparse_mat.data, sparse_mat=sparse_mat), x @ sparse_mat.todense()
)

table = jax.random.normal(key, (7, 3))
assert jnp.allclose(braintrace.embedding(jnp.array([1, 4]), table), table[jnp.array([1, 4])])
assert jnp.allclose(
    braintrace.einsum("bi,ioh->boh", x, jnp.ones((3, 2, 2))),
    jnp.einsum("bi,ioh->boh", x, jnp.ones((3, 2, 2))),
)

with_units = braintrace.matmul(x * u.mV, w * u.siemens)
assert with_units.unit.has_same_dim(u.mV * u.siemens) and jnp.allclose(with_units.mantissa, x @ w)
