"""The graph page: a convolution that reads and writes its own feature map; the state is made in
`__init__`.
"""

import contextlib
import io

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class ConvRNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = braintrace.nn.Conv2d(
            in_size=(6, 6, 2), out_channels=2, kernel_size=3, padding="SAME"
        )
        self.h = brainstate.HiddenState(jnp.zeros((6, 6, 2)))
        self.out = braintrace.nn.Linear(2 * 6 * 6, 3)

    def update(self, x):
        self.h.value = jax.nn.tanh(self.conv(self.h.value) + x)
        return self.out(self.h.value.reshape(-1))


model = ConvRNN()
learner = braintrace.compile(model, braintrace.D_RTRL, jnp.zeros((6, 6, 2)), batch_size=1)
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    learner.show_graph()
assert "conv" in printed.getvalue()

[group] = learner.graph.hidden_groups
assert group.hidden_paths[0] == ("h",) and group.varshape == (6, 6, 2)
assert [path for path, _ in learner.report.etrace_weights] == [("conv", "weight")]

xs = brainstate.random.randn(4, 6, 6, 2)
loss = lambda x: jnp.sum(learner(x) ** 2)
first = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs[:1])
assert close(learner.etrace_grad(xs[:1], step_fn=loss, reduction="sum"), first), (
    "at the first step nothing is left out"
)
grads = learner.etrace_grad(xs, step_fn=loss, reduction="sum")
assert all(jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(grads))
