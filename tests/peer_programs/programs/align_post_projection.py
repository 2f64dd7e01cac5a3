"""LIF neurons behind an `AlignPostProj` of brainpy: exponential synapses aligned with the
postsynaptic neuron, D-RTRL.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class LIF_Expon_Net(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, tau_mem=5.0 * u.ms, tau_syn=10.0 * u.ms):
        super().__init__()
        self.neu = brainpy.state.LIF(
            n_rec,
            tau=tau_mem,
            V_th=1.0 * u.mV,
            R=1.0 * u.ohm,
            V_rest=0.0 * u.mV,
            V_reset=0.0 * u.mV,
            spk_fun=braintools.surrogate.ReluGrad(),
            spk_reset="soft",
        )
        self.syn = brainpy.state.AlignPostProj(
            comm=braintrace.nn.Linear(
                n_in,
                n_rec,
                w_init=braintools.init.KaimingNormal(scale=4.0, unit=u.mA),
                b_init=braintools.init.ZeroInit(unit=u.mA),
            ),
            syn=brainpy.state.Expon.desc(
                n_rec, tau=tau_syn, g_initializer=braintools.init.ZeroInit(unit=u.mA)
            ),
            out=brainpy.state.CUBA.desc(scale=1.0),
            post=self.neu,
        )

    def update(self, spk):
        self.syn(spk)
        self.neu(0.0 * u.mA)
        return self.neu.get_spike()


with brainstate.environ.context(dt=1.0 * u.ms):
    model = LIF_Expon_Net(10, 6)
    brainstate.nn.init_all_states(model)
    learner = braintrace.D_RTRL(model)
    inputs = brainstate.random.bernoulli(0.4, size=(12, 10)).astype(float)
    learner.compile_graph(inputs[0])
    target = 0.3
    expected = bptt(model, lambda x: jnp.sum((model(x) - target) ** 2), inputs)
    grads = learner.etrace_grad(
        inputs, step_fn=lambda x: jnp.sum((learner(x) - target) ** 2), reduction="sum"
    )

assert len(learner.graph.hidden_groups) == 1, (
    "the synapse and the membrane of a neuron belong together"
)
assert learner.graph.hidden_groups[0].num_state == 2
assert close(grads, expected), (
    "without recurrent weights D-RTRL is exact, synapse and reset included"
)
