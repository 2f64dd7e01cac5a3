"""The concepts page of 0.1: delta synapses onto LIF neurons with recurrent connections,
`IODimVjpAlgorithm` around the model.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace
from peer_programs.reference import dead


class LIF_Delta_Net(brainstate.nn.Module):
    def __init__(
        self, n_in, n_rec, tau_mem=5.0 * u.ms, V_th=1.0 * u.mV, rec_scale=1.0, ff_scale=3.0
    ):
        super().__init__()
        self.neu = brainpy.state.LIF(
            n_rec,
            tau=tau_mem,
            spk_fun=braintools.surrogate.ReluGrad(),
            spk_reset="soft",
            V_th=V_th,
            V_rest=0.0 * u.mV,
            V_reset=0.0 * u.mV,
        )
        rec_init = braintools.init.KaimingNormal(rec_scale, unit=u.mV)
        ff_init = braintools.init.KaimingNormal(ff_scale, unit=u.mV)
        w_init = u.math.concatenate([ff_init([n_in, n_rec]), rec_init([n_rec, n_rec])], axis=0)
        self.syn = brainpy.state.DeltaProj(
            comm=braintrace.nn.Linear(
                n_in + n_rec, n_rec, w_init=w_init, b_init=braintools.init.ZeroInit(unit=u.mV)
            ),
            post=self.neu,
        )

    def update(self, spk):
        inp = u.math.concatenate([spk, self.neu.get_spike()], axis=-1)
        self.syn(inp)
        self.neu()
        return self.neu.get_spike()


with brainstate.environ.context(dt=0.5 * u.ms):
    model = LIF_Delta_Net(10, 10)
    brainstate.nn.init_all_states(model)
    learner = braintrace.IODimVjpAlgorithm(model, decay_or_rank=0.99)
    example_input = (brainstate.random.random(10) < 0.5).astype(float)
    learner.compile_graph(example_input)
    out = learner(example_input)
    weights = model.states(brainstate.ParamState)
    optimizer = braintools.optim.Adam(0.02)
    optimizer.register_trainable_weights(weights)
    spikes = (brainstate.random.random((20, 10)) < 0.5).astype(float)

    def step_loss(x):
        return jnp.mean((learner(x) - 1.0) ** 2)

    @brainstate.transform.jit
    def epoch():
        brainstate.nn.reset_all_states(model)
        learner.reset_state()
        grads, losses = learner.etrace_grad(spikes, step_fn=step_loss, return_value=True)
        optimizer.update(grads)
        return grads, losses.mean()

    history = [epoch() for _ in range(25)]

assert out.shape == (10,)
assert dead(history[0][0]) == []
assert history[-1][1] < history[0][1], [float(h[1]) for h in history]
