"""`compile` by class and by name, seeds, reports while compiling, errors that say what is wrong,
traces set up anew.
"""

import contextlib
import io

import brainstate
import jax
import jax.numpy as jnp

import braintrace


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(3, 4)
        self.out = braintrace.nn.Linear(4, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model, x = Net(), jnp.ones((2, 3))
for name, kind, options in [
    ("d_rtrl", braintrace.D_RTRL, {}),
    ("D_RTRL", braintrace.ParamDimVjpAlgorithm, {}),
    ("pp_prop", braintrace.pp_prop, {"decay_or_rank": 0.9}),
    ("es_d_rtrl", braintrace.ES_D_RTRL, {"decay_or_rank": 5}),
    ("esd_rtrl", braintrace.IODimVjpAlgorithm, {"decay_or_rank": (0.9, 0.5)}),
    ("eprop", braintrace.EProp, {"kappa_filter_decay": 0.9}),
    ("e_prop", braintrace.ETraceVjpAlgorithm, {}),
    ("ostl_recurrent", braintrace.OSTLRecurrent, {}),
    ("ostl_feedforward", braintrace.OSTLFeedforward, {}),
]:
    learner = braintrace.compile(model, name, x, batch_size=2, seed=1, **options)
    assert isinstance(learner, kind) and isinstance(learner, braintrace.ETraceAlgorithm)
    assert learner.update(x).shape == (2, 1)
    assert set(learner.hidden_states) == {("rnn", "h")} and set(learner.param_states) == set(
        model.states(brainstate.ParamState)
    )

shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    learner = braintrace.compile(model, braintrace.D_RTRL, x, batch_size=2, verbose=1)
assert shown.getvalue()

learner(x)
learner.init_etrace_state()
assert all(not jnp.any(v) for v in jax.tree.leaves(learner.get_etrace_of(("rnn", "Wh", "weight"))))

refused = []
for wrong in (
    lambda: braintrace.compile(model, "no_rule", x),
    lambda: braintrace.compile(model, "d_rtrl"),
    lambda: braintrace.compile(model, "d_rtrl", x, batch_size=2, verbose=7),
):
    try:
        wrong()
    except ValueError as error:
        refused.append(str(error))
assert len(refused) == 3 and all(refused)
assert issubclass(braintrace.NotSupportedError, Exception) and issubclass(
    braintrace.CompilationError, Exception
)
