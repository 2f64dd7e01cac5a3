"""Every cell of the zoo, under edits with every option: it compiles, or the error says why it does
not.
"""

import jax
import pytest

import braintrace
from braintrace import ETraceConfig
from zoo import CASES

OPTIONS = {
    "kappa": ("eprop", {"kappa_filter_decay": 0.7}),
    "random": (
        "eprop",
        {"feedback": "random", "random_feedback_key": 0, "kappa_filter_decay": 0.6},
    ),
    "f_otpe": ("otpe", {"leak": 0.8, "mode": "approx"}),
    "adaptive": ("eprop", {"feedback": "adaptive", "random_feedback_key": 0}),
    "rate": ("eprop", {"firing_rate": (0.1, 2.0)}),
    "readout": ("eprop", {"kappa_filter_decay": "readout"}),
    "otpe": ("otpe", {"leak": 0.8}),
    "ottt": ("ottt", {"leak": 0.8, "bias_trace": True}),
    "osttp": ("osttp", {"feedback_key": 0}),
    "leak of the model": ("ottt", {"leak": "model"}),
    "osttp_exact": ("osttp", {"feedback_key": 0, "scope": "exact"}),
    "scalar leak": (ETraceConfig(temporal_recursion="scalar_leak", decay=0.8), {}),
}
#: Every option on a quarter of the cells, three options on each cell.
PAIRS = [(n, o) for k, n in enumerate(CASES) for j, o in enumerate(OPTIONS) if j % 4 == k % 4]


@pytest.mark.parametrize(("name", "option"), PAIRS)
def test_compiles_or_says_why_not(name, option):
    params, carry, xs, _ = CASES[name].make(jax.random.key(7), 2, 2)
    algorithm, options = OPTIONS[option]
    try:
        learner = braintrace.compile(
            CASES[name].cell, algorithm, xs[0], params=params, carry=carry, **options
        )
    except braintrace.CompilationError as error:
        assert "\n  expected: " in str(error) or "\n  do: " in str(error)
    else:
        assert len(learner.graph.parameters) == len(params)
