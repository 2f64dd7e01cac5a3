"""Tokens through an `Embedding` into a recurrent cell, cross-entropy, one update a sequence."""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import dead


class TokenModel(brainstate.nn.Module):
    def __init__(self, n_token, n_emb, n_rec):
        super().__init__()
        self.emb = braintrace.nn.Embedding(n_token, n_emb)
        self.rnn = braintrace.nn.MGUCell(n_emb, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_token)

    def update(self, token):
        return self.out(self.rnn(self.emb(token)))


text = jnp.tile(jnp.array([0, 1, 2, 3, 2, 1]), 5)
tokens, following = text[:-1, None], text[1:, None]
model = TokenModel(4, 5, 12)
learner = braintrace.compile(model, "d_rtrl", tokens[0], batch_size=1)
optimizer = braintools.optim.Adam(0.03)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def step_loss(token, target):
    return braintools.metric.softmax_cross_entropy_with_integer_labels(
        learner(token), target
    ).mean()


@brainstate.transform.jit
def epoch():
    brainstate.nn.reset_all_states(model, batch_size=1)
    learner.reset_state(batch_size=1)
    grads, loss = learner.etrace_grad(
        tokens, following, step_fn=step_loss, loss_output="scalar", return_value=True
    )
    optimizer.update(grads)
    return grads, loss


history = [epoch() for _ in range(25)]
assert dead(history[0][0]) == [], "the embedding in front of the cell learns too"
assert history[-1][1] < 0.5 * history[0][1], [float(loss) for _, loss in history]
