"""`ControlFlowPolicy`: a step with a branch, a step with sub-steps, and what the report says about
them.
"""

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class Gated(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(3, 4))

    def init_state(self, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(4))

    def update(self, x):
        drive = braintrace.matmul(x, self.w.value)
        self.h.value = jax.lax.cond(
            x.sum() > 0,
            lambda h: 0.9 * h + jnp.tanh(drive),
            lambda h: 0.5 * h + drive,
            self.h.value,
        )
        return self.h.value


class SubSteps(Gated):
    def update(self, x):
        drive = braintrace.matmul(x, self.w.value)
        relax = lambda h, _: (h + 0.1 * (jnp.tanh(drive) - h), None)
        self.h.value, _ = jax.lax.scan(relax, self.h.value, None, length=20)
        return self.h.value


xs = brainstate.random.randn(8, 3)
for cell, kind in ((Gated(), "COND_IF_CONVERTED"), (SubSteps(), "SCAN_UNROLLED")):
    brainstate.nn.init_all_states(cell)
    policy = braintrace.ControlFlowPolicy(scan_unroll_limit=32)
    learner = braintrace.D_RTRL(cell, control_flow=policy)
    learner.compile_graph(xs[0])
    assert braintrace.DiagnosticKind[kind] in {record.kind for record in learner.report.diagnostics}
    expected = bptt(cell, lambda x, m=cell: jnp.sum(m(x) ** 2), xs)
    found = learner.etrace_grad(
        xs, step_fn=lambda x, f=learner: jnp.sum(f(x) ** 2), reduction="sum"
    )
    assert close(found, expected), kind

assert braintrace.ControlFlowPolicy().cond == "convert"
