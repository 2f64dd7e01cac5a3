"""The algorithms of traces by position, and those exact within a layer."""

from braintrace import SyntheticGradient

from .._algorithms import Algorithm

ALGORITHMS = {
    "d_rtrl": Algorithm("d_rtrl", {}),
    "pp_prop": Algorithm("pp_prop", {"decay_or_rank": (0.9, 0.7)}),
    "eprop": Algorithm("eprop", {"kappa_filter_decay": 0.7}),
    # The firing rate is one mean over samples; a single step takes the mean of their terms, a
    # sequence weighs them as its losses.
    "eprop_feedback": Algorithm(
        "eprop",
        {"feedback": "random", "random_feedback_key": 0, "firing_rate": (0.1, 2.0)},
        by_step=False,
        linear=False,
    ),
    "ostl_recurrent": Algorithm("ostl_recurrent", {}),
    "ottt": Algorithm("ottt", {"leak": 0.8}),
    "otpe": Algorithm("otpe", {"leak": 0.8}),
    "f_otpe": Algorithm("otpe", {"leak": 0.8, "mode": "approx"}),
    "osttp": Algorithm("osttp", {"feedback_key": 0, "scope": "exact"}, "y_target"),
    "instantaneous": Algorithm("instantaneous", {}),
    "dni": Algorithm("dni", {"synthesizer": SyntheticGradient(scale=0.3)}),
    "dni_hidden": Algorithm(
        "dni", {"synthesizer": SyntheticGradient(hidden_width=3, scale=0.3)}, another=True
    ),
}


SEPARATE = "samples"  # the exact influence within a layer is kept for each sample
MEETING = "centred_samples mean_field batch_norm batch_norm_in_training"
# rates and targets are those of samples, which must be known; noise scaled by a parameter is not
# seen to be that of a sample
UNKNOWN = "The batch is not known"
NOT_SAID = "no_batch_unsaid attention_across_samples one_key_for_all noise"
IN_FRONT = "does not have the batch on axis 0"
LAST = "batch_last batch_last_of_as_many_samples_as_neurons"
# states of which nothing stays in its place from step to step: a filter has no place beside them
NOT_FILTERED = "cannot be filtered"
NOTHING_STAYS = "lateral_derivative centred_backward rolled_backward shifted_state"
NO_ONE_ACTIVITY, ONE_WAY = "no one activity", "feed each other one way"
COMPLEX = "lru complex_modulus complex_recurrent complex_layers filtered_real_part filtered_complex"
REAL_SLOPE = "derivative of a real activity by a real drive"
LATER = "does not reach its layer's activity"
SHAPE, ORDER = "differ in shape", "not in one order"

REFUSED = {
    "ostl_recurrent": {SEPARATE: MEETING},
    "eprop": {NOT_FILTERED: NOTHING_STAYS},
    "osttp": {
        SEPARATE: MEETING,
        UNKNOWN: NOT_SAID,
        IN_FRONT: LAST,
        "The target has a wrong shape": "centred_populations",
        NO_ONE_ACTIVITY: "gru_reset_before",
    },
    # B stands in the place of a readout's weight
    "eprop_feedback": {
        "another number of samples than the batch": "centred_populations",
        UNKNOWN: NOT_SAID,
        IN_FRONT: LAST,
        "the mean of a real activity": COMPLEX,
        NO_ONE_ACTIVITY: "gru_reset_before",
    },
    # credit is handed from activity to activity of layers
    "otpe": {
        NOT_FILTERED: NOTHING_STAYS,
        NO_ONE_ACTIVITY: "gru_reset_before",
        ONE_WAY: "feedback",
        SHAPE: "perceptron_between",
        REAL_SLOPE: "complex_layers",
    },
    # one factor for the drive and the activity of a neuron
    "f_otpe": {
        IN_FRONT: LAST,
        NO_ONE_ACTIVITY: "gru_reset_before",
        ONE_WAY: "feedback",
        REAL_SLOPE: COMPLEX,
        LATER: (
            "readout_of_the_drive readout_of_the_old_state excitatory_and_inhibitory "
            "rolled_partner oscillator"
        ),
        SHAPE: (
            "grouped grouped_recurrent lstm lstm_peephole gru_reset_after perceptron_between "
            "padded_and_reversed vmapped neurons_first lif_readout_before_reset synapse_types "
            "both_parts vmapped_embedding as_many_words_as_samples"
        ),
        ORDER: (
            "substeps_recurrent mgu rolled_drive drive_plus_rolled_drive permuted_drive pieces "
            "layer_norm softmax_in_front softmax_by_hand centred_samples centred_populations "
            "batch_norm batch_norm_in_training layer_norm_of_equinox layer_norm_of_haiku"
        ),
    },
}

#: Twins with another number of readouts have other random matrices.
DRAWN = {("eprop_feedback", "parallel_populations")}

ATTENTION = {"linear_attention": "q", "delta_rule": "q"}  # q acts at its own step alone
MODEST: dict[str, dict[str, str]] = {
    # an upper layer beside a recurrent one is judged with it
    "ostl_recurrent": {
        "concatenated_layers": "W2 a2",
        "joined_layers": "M a2",
        "perceptron_between": "A",
    },
    "eprop": ATTENTION,
    "otpe": ATTENTION,
    "f_otpe": ATTENTION,
}
