"""`memory_plan` and `memory_budget` of NNX and Equinox learners, against the compiled programs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import braintrace

pytestmark = pytest.mark.usefixtures("single_precision")

I, N, B, T = 24, 48, 8, 96
# as in the tests of plans of functions: the compiler fuses and reuses in ways that no plan knows
FACTOR = 1.6
rng = np.random.default_rng(0)
XS, YS = (rng.normal(size=(T, B, size)).astype(np.float32) for size in (I, N))


def loss(out, target):
    return jnp.mean((out - target) ** 2)


class Served:
    def __init__(self, name, **options):
        self.name, h = name, jnp.zeros((B, N))
        if name == "nnx":
            self.model = nnx.GRUCell(I, N, rngs=nnx.Rngs(0))
        else:
            self.model = eqx.nn.GRUCell(I, N, key=jax.random.key(0))
            options["vmap"] = True
        self.learner = braintrace.compile(self.model, "d_rtrl", XS[0], carry=h, **options)

    @property
    def traces(self):
        if self.name == "nnx":
            return self.learner.traces.get_value()
        return self.learner.init(self.model, jnp.zeros((B, N))).traces

    def gradient(self, **options):
        if self.name == "nnx":
            return self.learner.etrace_grad(XS, YS, loss_fn=loss, **options)[0]
        state = self.learner.init(self.model, jnp.zeros((B, N)))
        return self.learner.etrace_grad(self.model, state, XS, YS, loss_fn=loss, **options)[0]

    def allocated(self, window):
        """Bytes of the compiled program, with its traces and weights."""
        if self.name == "nnx":
            graphdef, state = nnx.split(self.learner)

            def program(state, xs, ys):
                learner = nnx.merge(graphdef, state)
                return learner.etrace_grad(xs, ys, loss_fn=loss, window=window)[0], nnx.state(
                    learner
                )

        else:
            arrays, static = eqx.partition(
                (self.model, self.learner.init(self.model, jnp.zeros((B, N)))), eqx.is_array
            )
            state = arrays

            def program(arrays, xs, ys):
                model, state = eqx.combine(arrays, static)
                gradients, state, _ = self.learner.etrace_grad(
                    model, state, xs, ys, loss_fn=loss, window=window
                )
                return eqx.filter(gradients, eqx.is_array), state

        memory = jax.jit(program).lower(state, XS, YS).compile().memory_analysis()
        weights = (
            nnx.state(self.model, nnx.Param)
            if self.name == "nnx"
            else eqx.filter(self.model, eqx.is_inexact_array)
        )
        return memory.temp_size_in_bytes + nbytes(self.traces) + nbytes(weights)


def nbytes(tree):
    return sum(v.nbytes for v in jax.tree.leaves(tree))


@pytest.mark.parametrize("window", [8, None])
@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_plan_is_what_the_compiled_program_takes(name, window):
    served = Served(name)
    plan, allocated = served.learner.memory_plan(T, window), served.allocated(window)
    assert plan.traces == nbytes(served.traces) > 0
    assert allocated / FACTOR <= plan.total <= allocated * FACTOR
    assert plan.traces < allocated / FACTOR  # control: the traces alone are not the answer
    assert plan.window == (window or 48)  # two of the same size


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_a_plan_does_not_grow_with_the_sequence(name):
    learner = Served(name).learner
    short, long = learner.memory_plan(100, 10), learner.memory_plan(10_000, 10)
    assert short.total == long.total and long.bptt > 50 * short.bptt
    assert (
        learner.memory_plan(T, T, return_state=False).forming == 0 < learner.memory_plan(T, T).total
    )


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_the_default_window_fits_the_budget_and_the_gradient_is_the_same(name):
    free = Served(name)
    most = free.learner.memory_plan(T, 20).total
    bound = Served(name, memory_budget=most)
    assert bound.learner.memory_plan(T).window == 12 and bound.learner.memory_plan(T).total <= most
    assert free.learner.memory_plan(T).total > most  # control
    for a, b in zip(
        jax.tree.leaves(free.gradient()), jax.tree.leaves(bound.gradient()), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        braintrace.UsageError, match=r"64 of 96 steps at once[\s\S]*use window=\d+, which needs"
    ):
        bound.gradient(window=64)


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_a_model_beyond_the_budget_is_refused(name):
    with pytest.raises(braintrace.UsageError, match=r"at most 97\.7 KiB \(memory_budget\)"):
        Served(name, memory_budget=100_000)
