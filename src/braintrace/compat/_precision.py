"""Import brainstate without losing the user's precision: its import turns JAX's 64-bit mode off."""

import jax

_wide = jax.config.read("jax_enable_x64")

import brainstate  # noqa: E402

if _wide and not jax.config.read("jax_enable_x64"):
    brainstate.environ.set(precision=64)
