"""What is served differently: each statement about a name."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate import nn

import braintrace
from braintrace import ControlFlowPolicy, ETraceConfig
from frontend_brainstate.leaky import IN, Leaky, N, T, gradient, sequences
from frontend_brainstate.models import assert_close
from peer_programs.reference import bptt

from .minimal import distance
from .page import Rows, alike
from .statements import steps_that_are_counted

row = Rows("What is served differently")


def test_every_row_has_a_test():
    row.check()


@pytest.mark.parametrize("first", row.page)
def test_row(first):
    row.tests[first]()


class Biased(Leaky):
    """The layer under a readout with a bias."""

    def __init__(self):
        super().__init__()
        self.b = brainstate.ParamState(brainstate.random.randn(N))

    def update(self, x):
        drive = x @ self.w.value + self.b.value + self.h.value @ self.r.value
        self.h.value = self.step(self.h.value, drive)
        return self.h.value @ self.o.value


def learner_of(model, algorithm="d_rtrl", **options):
    return braintrace.compile(model, algorithm, jnp.zeros(IN), **options)


def squares(learner):
    return lambda x, y: jnp.sum((learner(x) - y) ** 2)


def exactness(learner, name):
    return str(learner.graph.exactness(name))


@row("`compile(..., vmap=True)`")
def vmap():
    xs, ys = brainstate.random.randn(T, 3, IN), brainstate.random.randn(T, 3, 2)
    mapped, learner = (
        braintrace.compile(alike(Leaky), "d_rtrl", xs[0], batch_size=3, **options)
        for options in ({"vmap": True}, {})
    )
    assert isinstance(mapped, braintrace.ETraceVmap)
    reset, mask = jnp.zeros((T, 3), bool).at[2, 1].set(True), jnp.ones((T, 3)).at[4:, 2].set(0)

    def of(learner, **options):
        learner.reset_state(model=True)
        step = lambda x, y: jnp.sum((learner(x) - y) ** 2, -1)
        return learner.etrace_grad(xs, ys, step_fn=step, reduction="sum", **options)

    expected = of(learner, mask=mask, reset=reset)
    assert_close(of(mapped, mask=mask, reset=reset, window=3), expected)
    for other in ({"mask": mask, "reset": ~reset}, {"mask": mask * 0 + 1, "reset": reset}):
        assert distance(of(mapped, window=3, **other)["w",], expected["w",]) > 1e-3  # control


@row("`learner.report`")
def report():
    found = learner_of(Leaky()).report
    assert isinstance(found, braintrace.CompilationReport)
    text = str(found)  # exactness, traces, and paths left out
    assert all(word in text for word in ("1 exact, 2 approximate", "traces of", "dropped path"))
    assert found.etrace_weights == [(("w",), [0]), (("r",), [0])] and found.hidden_groups


@row("`graph.hidden_param_op_relations`")
def relations():
    found = learner_of(Biased()).graph.hidden_param_op_relations
    assert sorted((r.path, r.operation) for r in found) == [
        (("b",), "add"),
        (("r",), "dot_general"),
        (("w",), "dot_general"),
    ]
    assert {r.primitive for r in found} == {jax.lax.add_p, jax.lax.dot_general_p}


@row("`graph.hidden_perturb`")
def perturbation():
    assert learner_of(Leaky()).graph.hidden_perturb is None


@row("`excluded_weights`")
def excluded():
    learner, (xs, ys) = learner_of(Leaky()), sequences()
    assert [path for path, _ in learner.report.excluded_weights] == [("o",)]
    assert jnp.any(gradient(learner, xs, ys)["o",] != 0)


@row("`ETraceConfig`")
def axes_of_rules():
    for more in ({"recurrence_scope": "coupled"}, {"recurrence_scope": "sparse_n", "sparse_n": 2}):
        assert exactness(learner_of(Leaky(), ETraceConfig(**more)), "r") == "exact"
    assert exactness(learner_of(Leaky(), ETraceConfig()), "r") == "approximate"  # control
    random = ETraceConfig(trace_factorization="random_projection", recurrence_scope="coupled")
    assert exactness(learner_of(Leaky(), random), "r") == "approximate"
    with pytest.raises(braintrace.NotSupportedError, match="hold what a learned estimate"):
        learner_of(Leaky(), ETraceConfig(learning_signal="bootstrapped"))
    later = ETraceConfig(learning_signal="bootstrapped", temporal_recursion="none")
    edits = [learner_of(Leaky(), of).functional.rule.edits for of in (later, "dni")]
    assert edits[0] == edits[1]


class Alone(Leaky):
    """Without recurrent weights."""

    def __init__(self):
        super().__init__()
        del self.r

    def update(self, x):
        self.h.value = self.step(self.h.value, x @ self.w.value)
        return self.h.value @ self.o.value


class SubSteps(Alone):
    """Twenty steps of the neurons in one of the model."""

    def loop(self, step, h):
        return jax.lax.fori_loop(0, 20, lambda _, h: step(h), h)

    def step(self, h, z):
        return self.loop(lambda h: h + 0.1 * (jnp.tanh(z) - h), h)


class Waiting(SubSteps):
    def loop(self, step, h):
        return jax.lax.while_loop(lambda h: jnp.max(h) < 0, step, h)


@row("`ControlFlowPolicy`")
def control_flow():
    learner, (xs, ys) = learner_of(SubSteps(), control_flow=ControlFlowPolicy()), sequences()
    found = gradient(learner, xs, ys, window=1)
    learner.reset_state(model=True)
    expected = bptt(learner.model, squares(learner.model), xs, ys)
    assert_close(found, {path: expected[path] for path in found})
    assert jnp.any(found["w",] != 0)
    with pytest.raises(braintrace.CompilationError, match="while"):
        learner_of(Waiting())


@row("`OSTLFeedforward`")
def ostl_without_recurrence():
    model, (xs, ys) = Alone(), sequences()
    of = lambda name, **options: gradient(learner_of(model, name, **options), xs, ys)["w",]
    published = of("ostl_feedforward")
    assert distance(published, of("d_rtrl")) < 1e-12
    factorised = of("ostl_feedforward", decay_or_rank=0.5)
    assert distance(factorised, of("pp_prop", decay_or_rank=0.5)) < 1e-12
    assert distance(factorised, published) > 1e-3  # control


@row("`etrace_grad(xs, ys, loss_fn=f)`")
def losses_of_the_output():
    learner, (xs, ys) = learner_of(Leaky()), sequences()
    expected = gradient(learner, xs, ys)
    learner.reset_state(model=True)
    loss = lambda out, y: jnp.sum((out - y) ** 2)
    assert_close(learner.etrace_grad(xs, ys, loss_fn=loss, reduction="sum"), expected)


@row("`etrace_fit(optimizer=...)`")
def fit():
    learner, (xs, ys) = learner_of(Leaky()), sequences()
    weights, rate = learner.param_states, 0.01
    start = {path: state.value for path, state in weights.items()}
    step, optimizer = gradient(learner, xs, ys), optax.sgd(rate, momentum=0.5)
    options = {"step_fn": squares(learner), "reduction": "sum"}
    learner.reset_state(model=True)
    inside = brainstate.transform.jit(
        lambda: learner.etrace_fit(xs, ys, optimizer=optimizer, **options)
    )
    with pytest.raises(braintrace.UsageError, match="optimi"):
        inside()
    learner.etrace_fit(xs, ys, optimizer=optimizer, **options)
    for path, state in weights.items():
        np.testing.assert_allclose(state.value, start[path] - rate * step[path])
    second = gradient(learner, xs, ys)
    learner.reset_state(model=True)
    middle = {path: state.value for path, state in weights.items()}
    inside()
    for path, state in weights.items():  # the momentum was kept
        moved = middle[path] - rate * (0.5 * step[path] + second[path])
        np.testing.assert_allclose(state.value, moved)


@row("`brainstate.environ.context(fit=...)`")
def fit_is_read_at_compile_time():
    class Dropped(Leaky):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def update(self, x):
            return super().update(self.drop(x))

    x = jnp.ones(IN)
    with brainstate.environ.context(fit=True):
        learner = learner_of(Dropped())
        learner(x)
    with (
        brainstate.environ.context(fit=False),
        pytest.raises(braintrace.UsageError, match="fit=True"),
    ):
        learner(x)
    with brainstate.environ.context(fit=True):
        plain = learner_of(Leaky())
    with brainstate.environ.context(fit=False):
        plain(x)  # control: this one does not depend on it


@row("`etrace_grad(chunk_size=...)`")
def chunks():
    learner, (xs, ys) = learner_of(Leaky()), sequences()
    whole = gradient(learner, xs, ys)
    for size in (1, 4):
        assert_close(gradient(learner, xs, ys, chunk_size=size), whole)


@row("inputs of another dtype or unit than the example's")
def inputs():
    spikes, (_, ys) = brainstate.random.rand(T, IN) < 0.5, sequences()
    learner = learner_of(Leaky())
    expected = gradient(learner, spikes.astype(float), ys)
    for kind in (bool, np.uint8, int):
        assert_close(gradient(learner, spikes.astype(kind), ys), expected)
    with pytest.raises(braintrace.UsageError):
        learner(jnp.ones(IN) * u.mV)

    class Indexed(Leaky):
        def update(self, index):
            return super().update(jnp.eye(IN)[index])

    learner = braintrace.compile(Indexed(), "d_rtrl", jnp.zeros((), int))
    outs = []
    for index in (2, 2.0):
        learner.reset_state(model=True)
        outs.append(learner(jnp.asarray(index)))
    np.testing.assert_array_equal(*outs)
    with pytest.raises(braintrace.UsageError):
        learner(jnp.asarray(2.5))


@row("`running_index`")
def steps_counted():
    assert steps_that_are_counted() == {"counted after a window of 5": 5}


@row("layers of `braintrace.nn`")
def layers():
    """All of them, beside what was recorded there, are in `tests/nn/test_weights.py`."""
    cell, other = (braintrace.nn.LSTMCell(40, 60) for _ in range(2))
    saved = cell.states(brainstate.ParamState).to_dict_values()
    assert {path[0] for path in saved} == {"Wi", "Wg", "Wf", "Wo"}
    assert np.std(cell.Wi.weight.value["weight"]) == pytest.approx(0.112, rel=0.05)
    braintrace.nn.load_weights(other, saved)
    assert_close(other.states(brainstate.ParamState).to_dict_values(), saved)
    with pytest.raises(braintrace.UsageError):
        braintrace.nn.load_weights(braintrace.nn.GRUCell(40, 60), saved)
    grouped = braintrace.nn.GroupedLinear(5, 40, 60).weight.value["weight"]
    assert np.var(grouped) == pytest.approx(2 / 40, rel=0.1)


@row("`param_type=ETraceParam` of a layer")
def old_parameters_of_layers():
    with pytest.warns(DeprecationWarning, match="ETraceParam"):
        kind = braintrace.ETraceParam
    layer = braintrace.nn.Linear(2, 3, param_type=kind)
    assert isinstance(layer.weight, brainstate.ParamState)
    assert layer(jnp.ones(2)).shape == (3,)


@row("`fast_solve`, `chunked_trace`, `snap_max_jacobian_elements`")
def options_without_effect():
    model, (xs, ys) = Leaky(), sequences()
    options = {"fast_solve": False, "chunked_trace": False, "snap_max_jacobian_elements": 1}
    assert_close(
        gradient(learner_of(model, **options), xs, ys), gradient(learner_of(model), xs, ys)
    )


def test_errors_are_of_the_kinds_that_the_page_names():
    assert issubclass(braintrace.UsageError, ValueError)
    assert issubclass(braintrace.NotSupportedError, braintrace.CompilationError)
    with pytest.raises(braintrace.UsageError, match=r"(?s)got: .*expected: .*do: "):
        braintrace.compile(Leaky(), "no such rule", jnp.zeros(IN))
