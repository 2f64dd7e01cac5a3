"""Reinforcement of a spiking policy: at each step of an episode it chooses the arm that the cue of
the step before made the good one. REINFORCE as per-step losses, advantage times log-likelihood.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(25)
n_rec, n_arms, n_steps, n_agents, lag = 24, 2, 12, 32, 1


class Policy(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = braintrace.nn.Linear(
            n_arms + n_rec, n_rec, w_init=braintools.init.KaimingNormal(scale=4.0)
        )
        self.out = braintrace.nn.Linear(n_rec, n_arms)
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)

    def init_state(self, batch_size=None, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.v.value = jnp.zeros((batch_size, n_rec))

    def update(self, cue):
        z = self.spike(self.v.value - 1.0)
        self.v.value = 0.7 * self.v.value + self.w(jnp.concatenate([cue, z], axis=-1)) - z
        return self.out(self.spike(self.v.value - 1.0))


policy = Policy()
example = jnp.zeros((n_agents, n_arms))
learner = braintrace.compile(
    policy, braintrace.pp_prop, example, batch_size=n_agents, decay_or_rank=0.7
)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(policy.states(brainstate.ParamState))
baseline = brainstate.ShortTermState(jnp.array(0.5))


def episode(_):
    good = brainstate.random.randint(0, n_arms, (n_steps, n_agents))
    cues = jax.nn.one_hot(jnp.roll(good, -lag, axis=0), n_arms)  # `lag` steps before its reward
    brainstate.nn.reset_all_states(policy, batch_size=n_agents)
    learner.reset_state(batch_size=n_agents)
    keys = brainstate.random.split_key(n_steps)

    def step_loss(cue, right, key):
        logits = learner(cue)
        action = jax.random.categorical(key, jax.lax.stop_gradient(logits))
        reward = (action == right).astype(float)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=-1)[:, 0]
        return -jnp.mean((reward - baseline.value) * chosen), reward.mean()

    grads, _, rewards = learner.etrace_grad(
        cues, good, keys, step_fn=step_loss, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    baseline.value = 0.9 * baseline.value + 0.1 * rewards.mean()
    return rewards.mean()


rewards = brainstate.transform.for_loop(episode, jnp.arange(500))
losses = 1 - rewards
assert losses[-10:].mean() < 0.5 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert baseline.value > 0.7
