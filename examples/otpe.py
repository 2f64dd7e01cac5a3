"""OTPE on Japanese Vowels: three layers of spiking neurons under a leaky readout of the same leak.

A spike acts on the layer above for as long as that layer's membranes remember it. OTPE estimates
this; OTTT leaves it out. The layer right below the readout is exact with OTPE; the cosines of each
layer's first gradient with BPTT's are printed first. The approximate form (F-OTPE) needs only
traces of inputs. Rows share weights, batches and optimiser.
"""

import jax
import jax.numpy as jnp
from _common import arguments, table
from _vowels import BATCH, COEFFICIENTS, HEADING, epochs, lif_network, online, run, through_time

import braintrace
from braintrace.tasks import japanese_vowels

LEAK, WIDTHS = 0.8, (64, 64, 64)


def cosine(a, b):
    return float(jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b) + 1e-30))


if __name__ == "__main__":
    args = arguments(__doc__)
    cell, initial, carry = lif_network(WIDTHS, LEAK, leaky_readout=True)
    params, first, x = (
        initial(jax.random.key(args.seed)),
        carry(BATCH),
        jnp.zeros((BATCH, COEFFICIENTS)),
    )

    def learner(name, **options):
        return online(
            braintrace.compile(cell, name, x, params=params, carry=first, leak=LEAK, **options),
            first,
        )

    methods = {
        "OTPE": learner("otpe"),
        "F-OTPE": learner("otpe", mode="approx"),
        "OTTT": learner("ottt"),
        "BPTT": through_time(cell, first),
    }
    batch = next(epochs(japanese_vowels(), 1, args.seed))
    found = {
        name: jax.jit(gradient)(params, batch)[0]["layers"] for name, gradient in methods.items()
    }
    cosines = [
        (
            name,
            *(
                cosine(own["weight"], true["weight"])
                for own, true in zip(layers, found["BPTT"], strict=True)
            ),
        )
        for name, layers in found.items()
    ]
    print(
        "cosine with BPTT, weights as drawn:\n"
        + table(("method", "layer 1", "layer 2", "layer 3"), *cosines),
        "\n",
    )
    rows = [(name, *run(cell, params, carry, gradient, args)) for name, gradient in methods.items()]
    print(table(HEADING, *rows))
