"""What is compiled for functions of the user's goes with them, and a new function for each call is
named.
"""

import functools
import gc
import warnings
import weakref

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import braintrace
from braintrace.learner import Kept, UserFunction

XS = jnp.ones((4, 1, 2))


def of_function():
    cell = lambda p, h, x: ((h := 0.5 * h + x @ p), h)
    p, h = jnp.ones((2, 3)), jnp.zeros((1, 3))
    learner = braintrace.compile(cell, "d_rtrl", XS[0], params=p, carry=h)
    call = lambda f: learner.etrace_grad(p, learner.init(p, h), XS, loss_fn=f)
    return call, [learner._programs.gradients]


def of_equinox():
    cell, h = eqx.nn.GRUCell(2, 3, key=jax.random.key(0)), jnp.zeros((1, 3))
    learner = braintrace.compile(cell, "d_rtrl", XS[0], carry=h, vmap=True)
    call = lambda f: learner.etrace_grad(cell, learner.init(cell, h), XS, loss_fn=f)
    return call, [learner._programs.gradients]


def of_nnx():
    cell = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
    learner = braintrace.compile(cell, "d_rtrl", XS[0], carry=jnp.zeros((1, 3)))
    call = lambda f: learner.etrace_grad(XS, loss_fn=f)
    return call, [learner._core._programs.gradients]


def of_brainstate():
    learner = braintrace.compile(braintrace.nn.GRUCell(2, 3), "d_rtrl", XS[0], batch_size=1)

    def call(f):
        learner.etrace_grad(XS, step_fn=(step := lambda x, f=f: f(learner(x))))
        return step

    return call, [learner._steps, learner.functional._programs.gradients]


FRONT_ENDS = [of_function, of_equinox, of_nnx, of_brainstate]


def executables():
    gc.collect()
    return len(jax.devices()[0].client.live_executables()), len(jax.live_arrays())


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_function_for_each_call(front_end):
    call, kept = front_end()
    functions, counts, line = [], [], None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for k in range(6):
            loss = lambda out, k=k: jnp.mean(out) * k
            line = loss.__code__.co_firstlineno
            functions.append(weakref.ref(loss))
            call(loss)
            del loss
            counts.append(executables())
    assert all(f() is None for f in functions)
    assert all(len(programs) == 1 for programs in kept)
    assert len(set(counts[1:])) == 1, counts
    [message] = {str(w.message) for w in caught}
    assert len(caught) == 1 and "define it once" in message and f"{__file__}:" in message
    assert front_end is of_brainstate or f"{__file__}:{line}" in message
    assert caught[0].filename == __file__


@pytest.mark.parametrize("front_end", [of_function, of_nnx])
def test_functions_that_somebody_holds_are_kept(front_end):
    """Control: here nothing may go, nothing is compiled twice, and one function is no reason to
    warn.
    """
    call, [programs] = front_end()
    several = [jnp.mean, lambda out: out.sum(), functools.partial(jnp.mean, axis=-1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for loss in several:
            call(loss)
        before = executables()[0]
        for _ in range(3):
            for loss in several:
                call(loss)
    assert len(programs) == 3 and executables()[0] == before


def test_a_method_is_one_function():
    class Loss:
        def of(self, out):
            return out.sum()

    call, [programs] = of_function()
    loss = Loss()
    for _ in range(3):
        call(loss.of)  # another object each time
    assert len(programs) == 1
    del loss
    call(jnp.mean)
    assert len(programs) == 1  # that of the method is gone


def test_learning_at_every_step_keeps_no_program():
    cell = lambda p, h, x: ((h := 0.5 * h + x @ p), h)
    p, h, optimizer = jnp.ones((2, 3)), jnp.zeros((1, 3)), optax.sgd(0.1)
    learner = braintrace.compile(cell, "d_rtrl", XS[0], params=p, carry=h)
    given = (p, optimizer.init(p), learner.init(p, h), XS)
    of_function = lambda: learner.etrace_fit(
        *given, loss_fn=jnp.mean, optimizer=optimizer, mode="O"
    )
    model = braintrace.compile(braintrace.nn.GRUCell(2, 3), "d_rtrl", XS[0], batch_size=1)
    step = lambda x: model(x).sum()

    class Nothing:
        def update(self, gradients):
            pass

    of_module = lambda: model.etrace_fit(XS, step_fn=step, optimizer=Nothing(), mode="O")
    for fit in (of_function, of_module):
        fit()
        counts = []
        for _ in range(3):
            fit()
            counts.append(executables()[0])
        assert len(set(counts)) == 1, counts


def test_the_cache_is_bounded():
    kept = Kept(lambda function, key: object())
    functions = [lambda k=k: k for k in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [kept.of(UserFunction(f), 0) for f in functions]
    assert len(kept) == 32 and kept.of(UserFunction(functions[-1]), 0) is made[-1]
    del functions
    kept.of(UserFunction(len), 0)
    assert len(kept) == 1


def test_inside_jit_nothing_is_counted():
    """What is compiled there is the user's program."""
    learner = braintrace.compile(braintrace.nn.GRUCell(2, 3), "d_rtrl", XS[0], batch_size=1)
    for _ in range(5):  # warnings are errors
        brainstate.transform.jit(
            lambda xs: learner.etrace_grad(xs, step_fn=lambda x: learner(x).sum())
        )(XS)
