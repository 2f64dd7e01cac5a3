"""`memory_plan` against the memory analysis of compiled programs, and budgets."""

import doctest
import re
from pathlib import Path

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace._compare import CELLS, algorithms

pytestmark = pytest.mark.usefixtures("single_precision")

I, N, O, B, T = 24, 48, 6, 8, 96
FACTOR = 1.6  # the compiler fuses and reuses in ways that no plan knows; measured: 0.8 to 1.5


def loss(out, target):
    return jnp.mean((out - target) ** 2)


def learner_of(cell, algorithm, **options):
    model = CELLS[cell](I, N, O, B)
    options = {**algorithms(model)[algorithm].options, **options}
    return model, braintrace.compile(
        model.cell, algorithm, jnp.zeros((B, I)), params=model.params, carry=model.carry, **options
    )


def measured(function, *arguments):
    """Bytes that the compiled program takes beside its arguments."""
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def nbytes(tree):
    return sum(v.nbytes for v in jax.tree.leaves(tree))


def within(planned, allocated):
    return allocated / FACTOR <= planned <= allocated * FACTOR


@pytest.mark.parametrize("window", [8, None])
@pytest.mark.parametrize(
    ("cell", "algorithm"),
    [
        ("gru", "d_rtrl"),
        ("lif", "d_rtrl"),
        ("gru", "pp_prop"),
        ("three_lif", "ottt"),
        ("rnn", "sk_rtrl"),
    ],
)
def test_plan_is_what_the_compiled_program_takes(cell, algorithm, window):
    model, learner = learner_of(cell, algorithm)
    state = learner.init(model.params, model.carry)
    xs, ys = jnp.zeros((T, B, I)), jnp.zeros((T, B, O))

    def gradient(params, state, xs, ys):
        return learner.etrace_grad(params, state, xs, ys, loss_fn=loss, window=window)[:2]

    plan = learner.memory_plan(T, window)
    assert plan.traces == nbytes(state.traces)
    allocated = (
        measured(gradient, model.params, state, xs, ys)
        + nbytes(state.traces)
        + nbytes(model.params)
    )
    assert within(plan.total, allocated), (plan.total, allocated)
    assert not within(
        plan.traces + plan.gradients, allocated
    )  # control: the traces alone are not the answer


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop", "ostl_recurrent"])
def test_a_state_that_forgets_itself_has_a_plan(algorithm):
    """No neuron reads its own past, and the group has no slot to trace neuron by neuron."""
    params = {"W": jnp.ones((I, N)), "U": jnp.ones((N, N)), "o": jnp.ones((N, O))}
    carry = jnp.zeros((B, N))

    def cell(p, h, x):
        h = jnp.tanh(x @ p["W"] + h @ p["U"])
        return h, h @ p["o"]

    options = {"decay_or_rank": 0.9} if algorithm == "pp_prop" else {}
    given = {"params": params, "carry": carry, **options}
    learner = braintrace.compile(cell, algorithm, jnp.zeros((B, I)), **given)
    plan = learner.memory_plan(T)
    assert plan.traces == nbytes(learner.init(params, carry).traces)
    assert (plan.traces > 2 * B * N * 4 * (I + N)) == (algorithm == "ostl_recurrent")
    assert plan.total >= plan.traces + plan.gradients > 0
    budget = {"memory_budget": 2 * plan.total, **given}
    braintrace.compile(cell, algorithm, jnp.zeros((B, I)), **budget)


@pytest.mark.parametrize("window", [1, None])
@pytest.mark.parametrize("cell", ["rnn", "lif"])
def test_traces_of_a_whole_layer_are_moved_where_they_lie(cell, window):
    inputs, neurons, samples, steps = 64, 128, 32, 128
    model = CELLS[cell](inputs, neurons, O, samples)
    x = jnp.zeros((samples, inputs))
    learner = braintrace.compile(
        model.cell, "ostl_recurrent", x, params=model.params, carry=model.carry
    )
    state = jax.eval_shape(learner.init, model.params, model.carry)
    xs, ys = (jax.ShapeDtypeStruct((steps, samples, n), jnp.float32) for n in (inputs, O))

    def gradient(params, state, xs, ys):
        return learner.etrace_grad(params, state, xs, ys, loss_fn=loss, window=window)[:2]

    def beside(**donated):
        memory = (
            jax.jit(gradient, **donated)
            .lower(model.params, state, xs, ys)
            .compile()
            .memory_analysis()
        )
        return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes

    plan, allocated = learner.memory_plan(steps, window), beside(donate_argnums=1)
    assert (
        plan.traces == sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(state.traces)) > 400e6
    )
    assert allocated < plan.traces / 8
    assert within(plan.total, plan.traces + allocated)
    assert beside() > plan.traces  # control: a state that must be kept is copied


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_without_an_end_trace_none_is_counted(cell):
    model, learner = learner_of(cell, "d_rtrl")
    state = learner.init(model.params, model.carry, traces=False)
    xs, ys = jnp.zeros((T, B, I)), jnp.zeros((T, B, O))

    def gradient(params, state, xs, ys):
        return learner.etrace_grad(
            params, state, xs, ys, loss_fn=loss, window=T, return_state=False
        )[0]

    plan = learner.memory_plan(T, T, return_state=False, traces=False)
    assert plan.traces == plan.forming == 0 and plan.parameters == ()
    allocated = measured(gradient, model.params, state, xs, ys) + nbytes(model.params)
    assert within(plan.total, allocated), (plan.total, allocated)
    assert not within(plan.total, allocated / 4)  # control
    assert (
        learner.memory_plan(T, T // 2, return_state=False, traces=False).traces > 0
    )  # formed between two windows


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_bptt_is_what_its_compiled_program_takes(cell):
    model, learner = learner_of(cell, "d_rtrl")
    xs, ys = jnp.zeros((T, B, I)), jnp.zeros((T, B, O))

    def total(params, xs, ys):
        def one(carry, at):
            carry, out = model.cell(params, carry, at[0])
            return carry, loss(out, at[1])

        return jax.lax.scan(one, model.carry, (xs, ys))[1].sum()

    allocated = measured(jax.grad(total), model.params, xs, ys) + nbytes(model.params)
    assert within(learner.memory_plan(T).bptt, allocated)
    assert not within(learner.memory_plan(T // 4).bptt, allocated)  # control: it grows with T


def test_plan_grows_with_the_window_and_not_with_the_length():
    _, learner = learner_of("gru", "d_rtrl")
    short, long = learner.memory_plan(100, 10), learner.memory_plan(10_000, 10)
    assert short.total == long.total and long.bptt > 50 * short.bptt
    assert learner.memory_plan(100, 20).buffers == 2 * short.buffers
    assert learner.memory_plan(5, 20).window == 5
    traces = {p.path: p.traces for p in short.parameters}
    assert traces == {
        "['U']": 4 * B * N * 3 * N,
        "['W']": 4 * B * I * 3 * N,
        "['b']": 4 * B * 3 * N,
    }


def test_a_plan_prints_as_a_table():
    _, learner = learner_of("gru", "d_rtrl")
    plan = learner.memory_plan(1000, 16)
    text = str(plan)
    for words in (
        "traces",
        "['W']",
        "traces being formed",
        "window",
        "16 of 1000 steps at once",
        "gradients",
        "total",
        "BPTT",
    ):
        assert words in text
    assert f"{plan.bptt / 2**20:.1f} MiB" in text


def test_nothing_is_allocated_for_a_plan():
    samples, neurons = 512, 2048
    shapes = {"W": (I, neurons), "U": (neurons, neurons)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}

    def rnn(p, h, x):
        h = 0.9 * h + jnp.tanh(x @ p["W"] + h @ p["U"])
        return h, h

    x, h = jax.ShapeDtypeStruct((samples, I), jnp.float32), jnp.zeros((samples, neurons))
    plan = braintrace.compile(rnn, "d_rtrl", x, params=params, carry=h).memory_plan(100)
    assert plan.traces == 4 * samples * neurons * (I + neurons)  # 8.7 GB


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = brainstate.nn.GRUCell(I, N)
        self.readout = brainstate.nn.Linear(N, O)

    def update(self, x):
        return self.readout(self.cell(x))


def test_plan_of_a_module():
    learner = braintrace.compile(Network(), "d_rtrl", jnp.zeros((B, I)), batch_size=B)
    plan = learner.memory_plan(T)
    assert plan.traces == nbytes(learner.etrace.value)
    assert plan.window == T // 2 and plan.total < plan.bptt * 4
    with pytest.raises(braintrace.UsageError, match="not compiled"):
        braintrace.D_RTRL(Network()).memory_plan(T)


@pytest.mark.parametrize("front_end", ["function", "module"])
def test_the_default_window_fits_the_budget_and_the_gradient_is_the_same(front_end):
    xs, ys = (
        jnp.asarray(np.random.default_rng(0).normal(size=(T, B, I)), jnp.float32),
        jnp.zeros((T, B, O)),
    )

    def make(**options):
        if front_end == "function":
            return learner_of("gru", "d_rtrl", **options)[1]
        brainstate.random.seed(0)
        return braintrace.compile(Network(), "d_rtrl", xs[0], batch_size=B, **options)

    def gradient(learner, **options):
        if front_end == "function":
            model = CELLS["gru"](I, N, O, B)
            return learner.etrace_grad(
                model.params,
                learner.init(model.params, model.carry),
                xs,
                ys,
                loss_fn=loss,
                **options,
            )[0]
        return learner.etrace_grad(xs, ys, step_fn=lambda x, y: loss(learner(x), y), **options)

    free = make()
    most = free.memory_plan(T, 20).total
    bound = make(memory_budget=most)
    assert bound.memory_plan(T).window == 12 and bound.memory_plan(T).total <= most
    for a, b in zip(jax.tree.leaves(gradient(free)), jax.tree.leaves(gradient(bound)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(braintrace.UsageError) as error:
        gradient(make(memory_budget=most), window=64)
    text = str(error.value)
    assert "needs more memory than the budget" in text and "64 of 96 steps at once" in text
    assert "use window=16, which needs" in text
    assert re.search(
        "; or pp_prop with window=(32|64), which needs .* [KM]iB; or ottt with window=(32|64), "
        "which needs",
        text,
    )


def test_a_model_beyond_the_budget_is_refused_before_its_traces_exist():
    network = Network()
    with pytest.raises(braintrace.UsageError) as error:
        braintrace.compile(
            network, "d_rtrl", jnp.zeros((B, I)), batch_size=B, memory_budget=200_000
        )
    assert "at most 195.3 KiB (memory_budget)" in str(error.value)
    assert "use pp_prop with window=1, which needs" in str(error.value)
    with pytest.raises(braintrace.UsageError, match="no window and no algorithm fits"):
        learner_of("gru", "d_rtrl", memory_budget=1000)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1 GB"])
def test_wrong_arguments(wrong):
    with pytest.raises(braintrace.UsageError, match="Invalid memory_budget"):
        learner_of("gru", "d_rtrl", memory_budget=wrong)
    with pytest.raises(braintrace.UsageError, match="Invalid number of steps"):
        learner_of("gru", "d_rtrl")[1].memory_plan(wrong)


def test_the_page_of_windows_runs(capsys):
    page = (Path(__file__).parents[1] / "docs" / "memory.md").read_text()
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "memory.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "50 of 10000 steps at once" in printed and re.search(
        r"use window=\d+, which needs", printed
    )


def test_the_example_of_the_plan_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(
        braintrace.MemoryPlan, "MemoryPlan", globs={}
    )
    assert doctest.DocTestRunner().run(example).failed == 0 < len(example.examples)
