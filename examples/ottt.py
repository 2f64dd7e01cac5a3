"""OTTT on Japanese Vowels: two feedforward layers of spiking neurons, with one trace per input of a
layer.

OTTT leaks the inputs of a layer as its membranes leak, and needs nothing else. Mode A updates once
per sequence, with the sum of the steps' gradients; mode O at every step, while the sequence is
still coming. `etrace_fit` does both. Rows share weights and batches; each update is one of Adam.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, table
from _vowels import (
    BATCH,
    COEFFICIENTS,
    HEADING,
    accuracy,
    epochs,
    lif_network,
    mean_loss,
    run,
    through_time,
    wanted,
)

import braintrace
from braintrace.tasks import japanese_vowels

LEAK, WIDTHS, EPOCHS = 0.8, (64, 64), 60


def fit(cell, params, carry, args, mode, rate):
    """As `run`, by `etrace_fit`."""
    first, data, optimizer = carry(BATCH), japanese_vowels(), optax.adam(rate)
    learner = braintrace.compile(
        cell,
        "ottt",
        jnp.zeros((BATCH, COEFFICIENTS)),
        params=params,
        carry=first,
        leak=LEAK,
        mode=mode,
    )

    @jax.jit
    def learn(params, moments, batch):
        label, weight = wanted(batch)
        params, moments, _, info = learner.etrace_fit(
            params,
            moments,
            learner.init(params, first),
            batch.x,
            label,
            optimizer=optimizer,
            loss_fn=cross_entropy,
            mask=weight,
        )
        return params, moments, mean_loss(info.losses, weight)

    moments, losses, start = optimizer.init(params), [], 0.0
    for number, batch in enumerate(epochs(data, 2 if args.quick else EPOCHS, args.seed)):
        params, moments, loss = learn(params, moments, batch)
        losses.append(float(loss))
        if number == 0:
            start = time.perf_counter()  # compiled
    seconds = time.perf_counter() - start
    return (
        accuracy(cell, params, carry, data.test),
        float(np.mean(losses[:9])),
        float(np.mean(losses[-9:])),
        seconds,
    )


if __name__ == "__main__":
    args = arguments(__doc__)
    cell, initial, carry = lif_network(WIDTHS, LEAK)
    params = initial(jax.random.key(args.seed))
    rows = [
        ("OTTT, mode A", *fit(cell, params, carry, args, "A", 5e-3)),
        ("OTTT, mode O", *fit(cell, params, carry, args, "O", 5e-4)),
        (
            "BPTT",
            *run(cell, params, carry, through_time(cell, carry(BATCH)), args, epoch_count=EPOCHS),
        ),
    ]
    print(table(HEADING, *rows))
