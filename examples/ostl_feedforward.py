"""OSTL without recurrence on Japanese Vowels: two feedforward layers of spiking neurons.

Without recurrent weights a neuron's past reaches its future through its own membrane alone, so one
trace per weight is exact for a layer under a memoryless readout (here the upper layer; the report
says so). With a decay the trace is factorised into one value per input and one per neuron. Rows
share weights, batches and optimiser.
"""

import jax
import jax.numpy as jnp
from _common import arguments, table
from _vowels import BATCH, COEFFICIENTS, HEADING, lif_network, online, run, through_time

import braintrace

LEAK, WIDTHS = 0.8, (64, 64)


if __name__ == "__main__":
    args = arguments(__doc__)
    cell, initial, carry = lif_network(WIDTHS, LEAK)
    params, first = initial(jax.random.key(args.seed)), carry(BATCH)

    def learner(**options):
        x = jnp.zeros((BATCH, COEFFICIENTS))
        return braintrace.compile(
            cell, "ostl_feedforward", x, params=params, carry=first, **options
        )

    traced = learner()
    print(traced.report, "\n")
    methods = {
        "OSTL": online(traced, first),
        f"OSTL, factorised, decay {LEAK}": online(learner(decay_or_rank=LEAK), first),
        "BPTT": through_time(cell, first),
    }
    rows = [(name, *run(cell, params, carry, gradient, args)) for name, gradient in methods.items()]
    print(table(HEADING, *rows))
