"""Online learning of recurrent and spiking networks with eligibility traces, on JAX."""

__version__ = "0.1.0"
