"""A stack of linear recurrent units (LRU) reads scikit-learn's handwritten digits pixel by pixel,
64 steps an image.

Two layers of complex leaky units, each under a nonlinear readout, as a plain function. A unit
remembers by itself, so the upper layer's gradients are exact; of the lower one's, the paths through
the memory of the upper layer are left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, normal, table, train
from sklearn.datasets import load_digits

import braintrace

BATCH, WIDTH, LAYERS, CLASSES, TEST = 64, 32, 2, 10, 297


def cell(params, carry, x):
    """x: (B, 1), one pixel."""
    new, z = [], x
    for p, h in zip(params["layers"], carry, strict=True):
        decay = jnp.exp(-jnp.exp(p["decay"]))
        turn = jax.lax.complex(jnp.cos(p["turn"]), jnp.sin(p["turn"]))
        h = decay * turn * h + jnp.sqrt(1 - decay**2) * jax.lax.complex(
            z @ p["in.real"], z @ p["in.imag"]
        )
        new.append(h)
        z = jnp.tanh(jnp.concatenate([h.real, h.imag], -1) @ p["out"] + p["bias"])
    return tuple(new), z @ params["readout"]


def initial(key):
    layers = []
    for inputs in (1, WIDTH):
        key, *keys = jax.random.split(key, 6)
        memory = jax.random.uniform(keys[0], (WIDTH,), minval=0.9, maxval=0.999)
        layers.append(
            {
                "decay": jnp.log(-jnp.log(memory)),
                "turn": jax.random.uniform(keys[1], (WIDTH,), maxval=0.6),
                "in.real": normal(keys[2], inputs, WIDTH),
                "in.imag": normal(keys[3], inputs, WIDTH),
                "out": normal(keys[4], 2 * WIDTH, WIDTH),
                "bias": jnp.zeros(WIDTH),
            }
        )
    return {"layers": layers, "readout": normal(key, WIDTH, CLASSES)}


def rest(batch):
    return tuple(jnp.zeros((batch, WIDTH), jnp.complex64) for _ in range(LAYERS))


def images():
    """`(pixels, labels)` to learn from, and to test on: pixels are (64, images, 1) from 0 to 1."""
    found = load_digits()
    pixels = (found.data.T[..., None] / 16).astype(np.float32)
    return (pixels[:, :-TEST], found.target[:-TEST]), (pixels[:, -TEST:], found.target[-TEST:])


def at_the_end(shape):
    """The loss counts when the last pixel has been seen."""
    return jnp.zeros(shape).at[-1].set(1.0)


def online(params):
    learner = braintrace.compile(
        cell, "d_rtrl", jnp.zeros((BATCH, 1)), params=params, carry=rest(BATCH)
    )
    print(learner.report, "\n")

    def gradient(params, batch):
        x, labels = batch
        y, mask = jnp.broadcast_to(labels, x.shape[:2]), at_the_end(x.shape[:2])
        state = learner.init(params, rest(BATCH))
        gradients, _, info = learner.etrace_grad(
            params, state, x, y, loss_fn=cross_entropy, mask=mask, return_state=False
        )
        return gradients, info.losses[-1].mean()

    return gradient


def logits(params, x):
    return jax.lax.scan(lambda c, x: cell(params, c, x), rest(x.shape[1]), x)[1][-1]


def through_time(params):
    loss = lambda params, batch: cross_entropy(logits(params, batch[0]), batch[1]).mean()

    def gradient(params, batch):
        value, gradients = jax.value_and_grad(loss)(params, batch)
        return gradients, value

    return gradient


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    (x, labels), (test_x, test_labels) = images()
    random, params = np.random.default_rng(seed), initial(jax.random.key(seed))
    chosen = (random.choice(len(labels), BATCH, replace=False) for _ in range(updates))
    batches = ((x[:, k], labels[k]) for k in chosen)
    params, losses, seconds = train(method(params), params, batches, optax.adam(3e-3))
    right = logits(params, jnp.asarray(test_x)).argmax(-1) == test_labels
    return float(right.mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 40 if args.quick else 1000
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("D-RTRL", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
