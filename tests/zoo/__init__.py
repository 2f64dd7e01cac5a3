"""A zoo of one-step cells in plain JAX, each with a two-evaluation oracle of its D-RTRL gradient.

`CASES` holds them by name; `_case.py` says how a case is written, `_reference.py` has the loss,
BPTT and the tolerance. `FEATURES` says what the words in `Case.features` mean.

`test_zoo.py` checks the cases themselves, `test_matrix.py` every algorithm on every case. A new
case is one function in a module of this directory; where an algorithm must refuse it, the table of
`test_matrix.py` says with what words. Programs run on NumPy (`run_once`), not compiled.
"""

from . import (  # noqa: F401  (each module registers its cases)
    batch,
    carried,
    complex_states,
    control_flow,
    conv_embed,
    exits,
    gated,
    layers,
    layout,
    leaky,
    mixing,
    numerics,
    positional,
    sharing,
    spiking,
    synapse,
)
from ._case import APPROXIMATE, CASES, EXACT, INSTANTANEOUS, Case
from ._interpret import run_once
from ._reference import bptt, loss, run, tolerance, total_loss

FEATURES = {
    "adaptive": "a spiking neuron with an adaptation state",
    "branch": "cond, switch or where",
    "calls": "jit and checkpoint inside the step",
    "complex": "a complex carry",
    "conv": "a convolution",
    "counter": "an integer in the carry",
    "degenerate": "the own-position transition is zero",
    "delay": "a delay buffer in the carry",
    "embedding": "integer x into a table",
    "float32": "a cast through float32, which sets the tolerance",
    "fused": "several gates or states in one array",
    "gated": "gates",
    "grouped": "a product with a batch axis in the weight",
    "key": "a PRNG key in the carry",
    "layernorm": "a layer norm written out",
    "matrix": "a state that is a matrix",
    "meeting": "samples meet",
    "layout": "elements move on their way to the state",
    "mixing": "mixing of the old state by anything but a weight",
    "multi-layer": "a state above a state",
    "non-holomorphic": "a complex transition with no complex derivative",
    "old-readout": "the output reads the old state directly",
    "per-sample": "a weight for each sample",
    "prelude": "a weight is made from parameters before it meets data",
    "presynaptic": "the new state under a product comes from no weight",
    "recurrent": "a product of the old state leads to a new one",
    "reverse-only": "a custom_vjp surrogate",
    "shared": "a weight in several places",
    "shared-carry": "a carried value of all samples, which a reset leaves as it is",
    "shared-context": "an input that is the same for all samples at a time",
    "siteless": "a parameter with instantaneous credit only",
    "softmax": "a softmax over neurons",
    "spiking": "surrogate gradients",
    "substeps": "a scan inside the step",
    "synapse": "synapses with their own dynamics",
    "unbatched": "one sample, without an axis for it",
}

__all__ = [
    "APPROXIMATE",
    "CASES",
    "EXACT",
    "FEATURES",
    "INSTANTANEOUS",
    "Case",
    "bptt",
    "loss",
    "run",
    "run_once",
    "tolerance",
    "total_loss",
]
