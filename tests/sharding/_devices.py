"""8 virtual devices, when this is imported before JAX."""

import os

import quick_compilation as quick_compilation

_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
