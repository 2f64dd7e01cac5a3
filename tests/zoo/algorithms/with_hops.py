"""The algorithms whose signal passes from neuron to neuron."""

from .._algorithms import Algorithm
from . import with_local_traces as local

ALGORITHMS = {
    "mdgl": Algorithm("mdgl", {}),
    "modprop": Algorithm("modprop", {"leak": 0.8, "taps": 4}),
}

# a signal passes the steps through one matrix of each layer
_NOT_ONE = "not that of one matrix"

REFUSED = {
    "modprop": {
        _NOT_ONE: (
            "alif alif_fused alif_half align_pre align_pre_recurrent as_many_slots_as_samples "
            "attention_across_samples batch_last batch_last_of_as_many_samples_as_neurons "
            "batch_norm_in_use both_parts causal_convolution centred_backward "
            "centred_populations complex_layers complex_modulus complex_recurrent "
            "cumulative_sum delayed_own_state delayed_product delta_rule "
            "excitatory_and_inhibitory exponential_synapse exponential_synapse_recurrent "
            "feedback filter_bank filtered_complex filtered_real_part filters_of_leaves "
            "grouped_recurrent gru_reset_after gru_reset_before inhibition lateral_derivative "
            "layer_norm_of_the_old_state learned_filter lif_readout_before_reset lru lstm "
            "lstm_peephole mean_field mean_subtraction neurons_first oscillator "
            "positional_layers recurrent_perceptron reversed_coupling roll_coupling "
            "rolled_backward rolled_partner rotating_pairs scaled_inhibition set_columns "
            "shift_register shift_register_of_leaves shifted_state slots "
            "softmax_of_the_old_state softmax_over_own_slots stacked_recurrent synapse_types "
            "time_first_delay time_first_delay_of_as_many_steps_as_samples vmapped "
            "weight_for_each_sample"
        ),
        "cannot stand for the dynamics": (
            "joined_layers concatenated_layers readout_of_the_old_state readout_of_the_drive "
            "lif_feedforward"
        ),
        local.ORDER: (
            "centred_samples substeps_recurrent mgu layer_norm softmax_in_front softmax_by_hand "
            "layer_norm_of_equinox layer_norm_of_haiku"
        ),
    }
}
