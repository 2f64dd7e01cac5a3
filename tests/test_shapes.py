"""The shapes in signatures hold: a short program runs while each call is checked against them."""

import subprocess
import sys

HOOK = """
from jaxtyping import install_import_hook

checked = ["braintrace.cell", "braintrace.learner", "braintrace.core.engine"]
install_import_hook(checked, "beartype.beartype").__enter__()
"""

PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np
import optax
import braintrace

T, B, I, N, O = 5, 4, 2, 3, 1
random = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(random.normal(size=shape))
params, h = {"w": draw(I, N), "u": draw(N, N), "o": draw(N, O)}, jnp.zeros((B, N))
xs, ys = draw(T, B, I), draw(T, B, O)


def cell(p, h, x):
    h = jnp.tanh(0.5 * h + x @ p["w"] + h @ p["u"])
    return h, h @ p["o"]


def loss(out, y):
    return ((out - y) ** 2).sum(-1)


def make(rule):
    learner = braintrace.compile(cell, rule, xs[0], params=params, carry=h, batch_size=B)
    return learner, learner.init(params, h)


learner, state = make("d_rtrl")
"""

EVERY_METHOD = """
options = {"loss_fn": loss, "mask": jnp.ones((T, B)), "reset": jnp.eye(T, B, dtype=bool)}
for window in (None, 1, 3):
    _, after, info = learner.etrace_grad(params, state, xs, ys, window=window, **options)
    assert info.losses.shape == (T, B) and int(after.steps) == T
factorised, fresh = make(braintrace.ETraceConfig(trace_factorization="io_factorized", decay=0.9))
factorised.etrace_grad(params, fresh, xs, ys, window=3, **options)
state, out = jax.jit(learner.update)(params, state, xs[0])
jax.grad(lambda p: learner.update(p, state, xs[0])[1].sum())(params)
several, _ = jax.vmap(lambda x: learner.update(params, state, x))(xs)
assert several.steps.shape == (T,) and out.shape == (B, O)
learner.update_window(params, state, xs)
learner.etrace_evolve(params, state, xs)
step = lambda p, call, x, y: loss(call(x), y).sum()
learner.etrace_grad(params, state, xs, ys, step_fn=step, mask=np.ones(T))
optimizer = optax.sgd(0.1)
for mode in "AO":
    start = params, optimizer.init(learner.trained(params)), state
    learner.etrace_fit(*start, xs, ys, optimizer=optimizer, mode=mode, **options)
assert learner.check_gradients(params, learner.init(params, h), xs, ys, **options).ok
assert learner.memory_plan(T).steps == T
"""

WRONG = """
from braintrace.cell import weigh
from braintrace.core.engine._sequence import default_window

calls = {
    "cell": lambda: weigh(jnp.ones(2), jnp.ones(())),
    "learner": lambda: learner.etrace_grad(
        params, state, xs, ys, loss_fn=loss, mask=[[1.0] * B] * T
    ),
    "time": lambda: learner.etrace_grad(params, state, xs, ys[1:], loss_fn=loss),
    "engine": lambda: default_window(learner.graph, learner.rule, float(T)),
}
for name, call in calls.items():
    try:
        call()
        print(name, "passes")
    except Exception as error:
        print(name, type(error).__name__)
"""


def printed(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_shapes_hold():
    assert printed(HOOK + PROGRAM + EVERY_METHOD + WRONG) == [
        f"{name} TypeCheckError" for name in ("cell", "learner", "time", "engine")
    ]


def test_shapes_are_checked_on_demand_alone():
    """The control: without the hook what is wrong passes, or fails in a place of its own."""
    assert printed(PROGRAM + WRONG) == [
        "cell passes",
        "learner passes",
        "time UsageError",
        "engine TypeError",
    ]
