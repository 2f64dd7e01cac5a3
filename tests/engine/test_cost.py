"""What is compiled once stays compiled, and the memory of a sequence does not grow with its
length.
"""

import logging

import jax
import jax.numpy as jnp
import pytest

from zoo import CASES, loss

from ._front_end import data, learner_for, summed


class Counted:
    """A function that counts how often Python runs it: once for each trace."""

    def __init__(self, function):
        self.function, self.count = function, 0

    def __call__(self, *given):
        self.count += 1
        return self.function(*given)


@pytest.fixture
def counted():
    name = "gru_reset_after"
    params, carry, xs, ys = data(name)
    cell = Counted(CASES[name].cell)
    return cell, learner_for(cell, params, carry, xs[0]), params, carry, xs, ys


def traces_of(call, *counters):
    """How often the counted functions run during `call`, and how many programs JAX makes."""
    before = [c.count for c in counters]
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        handler = logging.Handler()
        handler.emit = lambda record: compiled.append(record.getMessage())
        logger = logging.getLogger("jax")
        patch.setattr(logger, "propagate", False)
        logger.addHandler(handler)
        try:
            jax.block_until_ready(call())
        finally:
            logger.removeHandler(handler)
    return [c.count - b for c, b in zip(counters, before, strict=True)], [
        m for m in compiled if "Compiling" in m
    ]


def test_the_cell_is_staged_once(counted):
    cell, learner, params, carry, xs, ys = counted
    assert cell.count == 1
    state = learner.init(params, carry)
    learner.update(params, state, xs[0])
    learner.update_window(params, state, xs)
    learner.etrace_grad(params, state, xs, ys, loss_fn=loss)
    learner.etrace_evolve(params, state, xs)
    jax.jit(learner.update)(params, state, xs[0])
    assert cell.count == 1
    reset = jnp.zeros(xs.shape[:2], bool)
    learner.etrace_grad(params, state, xs, ys, loss_fn=loss, reset=reset)
    assert cell.count == 1


def test_a_second_eager_call_compiles_nothing(counted):
    cell, learner, params, carry, xs, ys = counted
    loss_fn = Counted(loss)
    mask, reset = jnp.ones(xs.shape[:2]), jnp.zeros(xs.shape[:2], bool)

    def calls(params, state):
        yield learner.update(params, state, xs[0])
        yield learner.update_window(params, state, xs)
        yield learner.update_window(params, state, xs, full=True)
        yield learner.etrace_grad(params, state, xs, ys, loss_fn=loss_fn)
        yield learner.etrace_grad(
            params, state, xs, ys, loss_fn=loss_fn, mask=mask, reset=reset, window=2
        )
        yield learner.etrace_evolve(params, state, xs)

    state = learner.init(params, carry)
    for _ in calls(params, state):
        pass
    scaled = jax.tree.map(lambda v: 0.9 * v, params)
    counts, programs = traces_of(lambda: list(calls(scaled, state)), cell, loss_fn)
    assert counts == [0, 0]
    assert programs == []


def test_a_new_loss_function_compiles(counted):
    """Control: the count notices a trace, and a program."""
    _, learner, params, carry, xs, ys = counted
    state = learner.init(params, carry)
    learner.etrace_grad(params, state, xs, ys, loss_fn=loss)
    other = Counted(loss)
    [count], programs = traces_of(
        lambda: learner.etrace_grad(params, state, xs, ys, loss_fn=other), other
    )
    assert count > 0
    assert programs


def test_gradients_by_eager_update_run_compiled_programs(counted):
    """`jax.grad` of an eager update re-runs the cached programs: the cell is not walked again."""
    cell, learner, params, carry, xs, ys = counted
    state = learner.init(params, carry)

    def gradient(x):
        return jax.grad(lambda p: summed(learner.update(p, state, x)[1], ys[0]))(params)

    gradient(xs[0])
    counts, programs = traces_of(lambda: gradient(xs[1]), cell)
    assert counts == [0]
    assert programs == []


@pytest.mark.parametrize("name", ["gru_reset_after", "alif"])
def test_memory_does_not_grow_with_the_length(name):
    params, carry, xs, ys = data(name)
    learner = learner_for(CASES[name].cell, params, carry, xs[0])

    def temporary(steps, gradient):
        shapes = [jax.ShapeDtypeStruct((steps, *v.shape[1:]), v.dtype) for v in (xs, ys)]
        return (
            jax.jit(gradient)
            .lower(params, carry, *shapes)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    def online(params, carry, xs, ys):
        return learner.etrace_grad(
            params, learner.init(params, carry), xs, ys, loss_fn=loss, window=10
        )[:2]

    def bptt(params, carry, xs, ys):
        def total(params):
            _, outs = jax.lax.scan(lambda c, x: CASES[name].cell(params, c, x), carry, xs)
            return jnp.mean(jax.vmap(loss)(outs, ys))

        return jax.grad(total)(params)

    sequence = (
        (xs[0].size + ys[0].size) * xs.dtype.itemsize * 10_000
    )  # at most one copy of the input itself
    short, long = temporary(100, online), temporary(10_000, online)
    assert long - short <= sequence + 64
    assert temporary(10_000, bptt) > 3 * long  # control
