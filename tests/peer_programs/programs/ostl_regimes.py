"""The OSTL page: the rule with recurrence on a recurrent layer, the rule without on one without."""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(31)


class OSTLModel(brainstate.nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent
        self.w_in = brainstate.ParamState(0.25 * brainstate.random.randn(2, 5))
        if recurrent:
            self.w_rec = brainstate.ParamState(0.3 * brainstate.random.randn(5, 5))
        self.w_out = brainstate.ParamState(0.2 * brainstate.random.randn(5, 1))

    def init_state(self, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(5))

    def reset_state(self, **kwargs):
        self.h.value = jnp.zeros_like(self.h.value)

    def update(self, x):
        drive = braintrace.matmul(x, self.w_in.value)
        if self.recurrent:
            drive = drive + braintrace.matmul(self.h.value, self.w_rec.value)
        self.h.value = jnp.tanh(drive)
        return self.h.value @ self.w_out.value


inputs = brainstate.random.randn(10, 2)
targets = jnp.ones((10, 1))


def compile_and_measure(algorithm, recurrent):
    model = OSTLModel(recurrent=recurrent)
    brainstate.nn.init_all_states(model)
    learner = braintrace.compile(model, algorithm, inputs[0])

    def step_loss(x, target):
        return jnp.mean((learner(x) - target) ** 2)

    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    expected = bptt(
        model, lambda x, y: jnp.mean((model(x) - y) ** 2), inputs, targets, reduce=jnp.mean
    )
    grads, loss = learner.etrace_grad(
        inputs, targets, step_fn=step_loss, loss_output="scalar", return_value=True
    )
    return learner, loss, grads, expected


with_h, recurrent_loss, recurrent_grads, recurrent_bptt = compile_and_measure(
    braintrace.OSTLRecurrent, recurrent=True
)
without_h, _, feedforward_grads, feedforward_bptt = compile_and_measure(
    braintrace.OSTLFeedforward, recurrent=False
)

assert with_h.config.recurrence_scope == "coupled"
assert jnp.isfinite(recurrent_loss)
assert close(recurrent_grads, recurrent_bptt), "one layer: the rule with recurrence is exact"
assert close(feedforward_grads, feedforward_bptt), "no recurrence: so is the other"
diagonal = compile_and_measure(braintrace.D_RTRL, recurrent=True)
assert not close(diagonal[2], diagonal[3], 1e-3), "without the recurrence it is not"
