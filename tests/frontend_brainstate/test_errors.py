"""The likeliest mistakes, word for word. After each the model is as before."""

import brainstate
import brainunit as u
import jax.numpy as jnp
import pytest
from brainstate import nn

import braintrace
from braintrace.core import CompilationError, UsageError

from .models import IN, B, N, Readout, data

X = jnp.zeros((B, IN))


def message(error):
    return str(error.value)


def raises(kind, text, call):
    with pytest.raises(kind) as error:
        call()
    assert message(error) == text.strip("\n")


class Leak(nn.Module):
    """Writes `make(x, w, h)` into its state."""

    def __init__(self, make):
        super().__init__()
        self.w = brainstate.ParamState(jnp.ones(IN))
        self.h = brainstate.HiddenState(jnp.zeros(IN) * u.mV)
        self.make = make

    def update(self, x):
        self.h.value = self.make(x, self.w.value, self.h.value)
        return self.h.value


def test_unknown_algorithm():
    raises(
        UsageError,
        """
Unknown algorithm.
  got:      'bptt'
  expected: one of {}, or an algorithm's class
  do:       pass one of these names (case does not matter), or a class such as braintrace.D_RTRL
""".format(", ".join(braintrace.rules.ALGORITHMS)),
        lambda: braintrace.compile(Readout(), "bptt", X),
    )


def test_no_example_input():
    raises(
        UsageError,
        """
No example input.
  got:      compile(model, algorithm)
  expected: the inputs of one step
  do:       compile(model, algorithm, x), with x as in learner(x)
""",
        lambda: braintrace.compile(Readout(), "d_rtrl"),
    )


@pytest.mark.parametrize("given", [None, 3])
def test_wrong_batch_size(given):
    model = Readout()
    raises(
        UsageError,
        f"""
The states do not have the batch size of the inputs.
  got:      batch_size={given}, inputs of shape (4, 3)
  expected: batch_size=4
  do:       pass batch_size=4, or vmap=True for a model of one sample
""",
        lambda: braintrace.compile(model, "d_rtrl", X, batch_size=given),
    )
    assert not hasattr(model.rnn, "h")


def test_wrong_shape_and_dtype():
    learner = braintrace.compile(Readout(), "d_rtrl", X, batch_size=B)
    raises(
        UsageError,
        """
The input has a wrong shape at [0].
  got:      shape (5, 3)
  expected: shape (4, 3)
  do:       pass the shape that was compiled, or compile again
""",
        lambda: learner(jnp.zeros((5, IN))),
    )
    raises(
        UsageError,
        """
The input has a wrong dtype at [0].
  got:      complex128
  expected: float64
  do:       convert it, or compile again with an example of this dtype
""",
        lambda: learner(jnp.zeros((B, IN), complex)),
    )


def test_calling_before_compiling():
    raises(
        UsageError,
        """
D_RTRL is not compiled.
  got:      a call before compile_graph
  expected: a compiled learner
  do:       call compile_graph(x) with the inputs of one step first
""",
        lambda: braintrace.D_RTRL(Readout())(X),
    )


def test_states_not_initialised():
    raises(
        CompilationError,
        """
The step fails, and the model has no hidden state.
  got:      AttributeError: 'GRUCell' object has no attribute 'h'
  expected: a model whose states are initialised
  do:       call braintrace.compile, or brainstate.nn.init_all_states(model, batch_size=...) first
""",
        lambda: braintrace.D_RTRL(Readout()).compile_graph(X),
    )


def test_states_made_anew():
    learner = braintrace.compile(Readout(), "d_rtrl", X, batch_size=B)
    nn.init_all_states(learner.model, batch_size=B)
    raises(
        UsageError,
        """
The model's states were made anew after it was compiled.
  got:      other states than the compiled ones
  expected: the same states with new values
  do:       compile again after init_all_states; to reset call learner.reset_state(model=True)
""",
        lambda: learner(X),
    )


def test_nothing_to_learn_online():
    raises(
        CompilationError,
        """
The model has no hidden state.
  got:      a step that writes no differentiable state
  expected: a recurrent or spiking model, with HiddenStates
  do:       differentiate a feed-forward model with brainstate.transform.grad: it needs no traces
""",
        lambda: braintrace.compile(nn.Linear(IN, N), "d_rtrl", X, batch_size=B),
    )
    raises(
        CompilationError,
        """
No parameter reaches a hidden state.
  got:      parameters ['w']
  expected: a ParamState that the hidden state depends on
  do:       hold trainable weights in brainstate.ParamState; for a readout alone use \
brainstate.transform.grad
""",
        lambda: braintrace.compile(Leak(lambda x, w, h: 0.9 * h + x * u.mV), "d_rtrl", X[0]),
    )


@pytest.mark.parametrize(
    "make, kind, what",
    [
        (lambda x, w, h: w * x * u.mA, UsageError, "h has a wrong unit."),
        (lambda x, w, h: w * x, UsageError, "h has a wrong unit."),
        (
            lambda x, w, h: (w * x)[:2] * u.mV,
            CompilationError,
            "The step changes the shape or dtype of the state h.",
        ),
        (
            lambda x, w, h: (w * x).astype(jnp.float32) * u.mV,
            CompilationError,
            "The step changes the shape or dtype of the state h.",
        ),
        (
            lambda x, w, h: (w * x * u.mV, h),
            CompilationError,
            "h is written with another structure.",
        ),
    ],
)
def test_a_state_written_otherwise(make, kind, what):
    model = Leak(make)
    before = model.h.value
    with pytest.raises(kind) as error:
        braintrace.compile(model, "d_rtrl", X[0])
    assert message(error).startswith(what)
    assert model.h.value is before


def test_states_made_and_parameters_written_in_the_step():
    class Makes(Leak):
        def update(self, x):
            self.late = brainstate.HiddenState(x)
            return super().update(x)

    class Writes(Leak):
        def update(self, x):
            self.w.value = self.w.value + x
            return super().update(x)

    model = Makes(lambda x, w, h: w * x * u.mV)
    with pytest.raises(CompilationError, match=r"The step makes states\.\n  got:      \['late'\]"):
        braintrace.compile(model, "d_rtrl", X[0])
    assert not hasattr(model, "late")
    with pytest.raises(CompilationError, match=r"The step writes a parameter\.\n  got:      w\n"):
        braintrace.compile(Writes(lambda x, w, h: w * x * u.mV), "d_rtrl", X[0])


def test_wrong_options():
    raises(
        UsageError,
        """
D_RTRL has no such option.
  got:      decay
  expected: some of vjp_method, trace_dtype, config, random_feedback_key, name
  do:       look at the signature of D_RTRL
""",
        lambda: braintrace.compile(Readout(), "d_rtrl", X, batch_size=B, decay=0.9),
    )
    for options in ({"vjp_method": "both"}, {"trace_dtype": "int32"}, {"trace_dtype": "wide"}):
        with pytest.raises(UsageError):
            braintrace.D_RTRL(Readout(), **options)


def test_loss_not_finite():
    learner = braintrace.compile(Readout(), "d_rtrl", X, batch_size=B)
    xs, ys = data()
    with pytest.raises(
        UsageError, match=r"The loss is not finite\.\n  got:      nan at step 2, sample 1"
    ):
        learner.etrace_grad(
            xs,
            ys.at[2, 1].set(jnp.nan),
            step_fn=lambda x, y: jnp.sum(jnp.square(learner(x) - y), axis=-1),
        )


def test_a_plain_function_needs_params_and_carry():
    cell = lambda params, carry, x: (carry, x)
    with pytest.raises(UsageError, match="A function needs its parameters and its carry"):
        braintrace.compile(cell, "d_rtrl", X)
    with pytest.raises(UsageError, match="seed: not for a plain function"):
        braintrace.compile(cell, "d_rtrl", X, params={}, carry=X, seed=0)
