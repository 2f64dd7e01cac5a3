"""`ETraceConfig`: rules by their coordinates, legal and not, and the presets at the same points."""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import close


class RNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = braintrace.nn.GRUCell(3, 4)
        self.out = braintrace.nn.Linear(4, 1)

    def update(self, x):
        return x >> self.cell >> self.out


model = RNN()
x0 = brainstate.random.randn(1, 3)
xs, ys = brainstate.random.randn(10, 1, 3), brainstate.random.randn(10, 1, 1)


def gradient(algorithm, **options):
    learner = braintrace.compile(model, algorithm, x0, batch_size=1, **options)
    return learner.etrace_grad(xs, ys, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2))


assert close(gradient(braintrace.ETraceConfig()), gradient("d_rtrl"))
factored = braintrace.ETraceConfig(trace_factorization="io_factorized", decay=0.9)
assert factored.temporal_recursion == ("scalar_leak", "jacobian")
assert close(gradient(factored), gradient(braintrace.pp_prop, decay_or_rank=0.9))
assert close(
    gradient(braintrace.ETraceConfig(trace_filter="kappa", kappa=0.5)),
    gradient("eprop", kappa_filter_decay=0.5),
)
leak = braintrace.ETraceConfig(trace_factorization="io_factorized", decay=(0.9, 0.0))
assert not close(gradient(leak), gradient(factored), 1e-3)

refused = 0
for fields in (
    {"kappa": 0.5},
    {"trace_factorization": "io_factorized"},
    {"recurrence_scope": "coupled", "temporal_recursion": "none"},
):
    try:
        braintrace.ETraceConfig(**fields)
    except ValueError:
        refused += 1
assert refused == 3
assert braintrace.ETraceConfig().replace(trace_filter="kappa", kappa=0.5).kappa == 0.5
