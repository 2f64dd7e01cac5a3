"""Sequential digits, column by column, through two linear recurrent units with gated nonlinear
mixing between them (as stacks for long sequences are built). D-RTRL.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(13)
rng = np.random.default_rng(13)
n_classes, side, width, batch_size = 4, 8, 16, 16

rows = """
.####... ...##... .#####.. .#...#..
#....#.. ..###... .....#.. .#...#..
#....#.. ...##... ....#... .#...#..
#....#.. ...##... ...#.... .######.
#....#.. ...##... ..#..... .....#..
#....#.. ...##... .#...... .....#..
.####... ..####.. .######. .....#..
........ ........ ........ ........
"""
glyphs = rows.split()
digits = np.array([[[c == "#" for c in glyphs[4 * r + d]] for r in range(side)] for d in range(4)])


def images(n_samples):
    labels = rng.integers(0, n_classes, n_samples)
    moved = [np.roll(digits[d], rng.integers(0, 2, 2), (0, 1)) for d in labels]
    noisy = np.array(moved) + 0.3 * rng.standard_normal((n_samples, side, side))
    return noisy.transpose(2, 0, 1), labels  # (columns as time, samples, rows)


class Block(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.lru = braintrace.nn.LRUCell(width, 16, r_min=0.5, r_max=0.95)
        self.gate = braintrace.nn.Linear(width, width)

    def update(self, x):
        y = jax.nn.gelu(self.lru(x))
        return x + y * jax.nn.sigmoid(self.gate(y))


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = braintrace.nn.Linear(side, width)
        self.blocks = brainstate.nn.Sequential(Block(), Block())
        self.decoder = braintrace.nn.Linear(width, n_classes)

    def update(self, x):
        return self.decoder(self.blocks(self.encoder(x)))


model = Net()
xs, labels = images(96)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0, :batch_size], batch_size=batch_size)
optimizer = braintools.optim.AdamW(5e-3, weight_decay=1e-3)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
late = (jnp.arange(side) >= side - 3).astype(float)


def start():
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)


@brainstate.transform.jit
def train(x, label):
    start()
    cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
    grads, loss = learner.etrace_grad(
        x,
        step_fn=lambda column: cross_entropy(learner(column), label).mean(),
        mask=late,
        loss_output="scalar",
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return loss


@brainstate.transform.jit
def evaluate(x, label):
    start()
    logits = learner.etrace_evolve(x, return_outputs=True)
    return jnp.mean(logits[-3:].sum(0).argmax(-1) == label)


losses = []
for _ in range(8):
    for chosen in rng.permutation(96).reshape(-1, batch_size):
        losses.append(float(train(xs[:, chosen], labels[chosen])))
test_xs, test_labels = images(batch_size)
accuracy = evaluate(test_xs, test_labels)
assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:3]), losses
assert accuracy > 0.7, accuracy
