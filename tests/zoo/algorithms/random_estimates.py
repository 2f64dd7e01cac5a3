"""The algorithms that draw an unbiased estimate of the influence on all the hidden state."""

from .._algorithms import Algorithm
from .with_local_traces import SEPARATE

ALGORITHMS = {
    "uoro": Algorithm("uoro", {}),
    "kf_rtrl": Algorithm("kf_rtrl", {}),
    "ok_rtrl": Algorithm("ok_rtrl", {"rank": 2}),
}

MEETING = "centred_samples mean_field batch_norm batch_norm_in_training"
REFUSED = {a: {SEPARATE: MEETING} for a in ALGORITHMS}

#: Twins whose weights are other ones, or meet data elsewhere, have other norms and terms.
DRAWN = {(a, twin) for a in ALGORITHMS for twin in ("scaled_activity", "activity_read_twice")}

#: Influences that are a product, or a sum of two: of a leaky readout, of what acts at two steps, or
#: of data with two dimensions.
MODEST = {
    "kf_rtrl": {"switch": "V"},  # taken at one step alone
    "ok_rtrl": {
        "cond_products": "V",
        "switch": "U V W",
        "filtered_real_part": "C_re C_im",
        "filtered_complex": "C_re C_im",
        "leaky_readout": "o",
        "pieces": "V",
        "fourier_input": "W",
        "rotating_pairs": "W",
    },
}
