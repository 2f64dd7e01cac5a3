"""How good a gradient is said to be: against BPTT computed apart, and against the truth where it is
a bound.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import braintrace
from braintrace.checks import bptt_gradient, compare_gradients
from braintrace.core.analysis import Signature, analyse
from braintrace.core.jaxpr import stage
from braintrace.core.jaxpr._policy import ControlFlowPolicy
from braintrace.learner import _fidelity, _objective

from ._rules import CASES, QUICK, SUM, apart, windowed
from .cells import EXAMPLES, B, T, data

MASK = np.random.default_rng(1).uniform(0.5, 1.5, (T, B))
RESET = np.arange(T)[:, None] == np.array([2, 4])
HOW = {"mask": jnp.asarray(MASK), "reset": jnp.asarray(RESET)}


def jitted(function, *given):
    return jax.jit(function, compiler_options=QUICK)(*given)


def asked(this, given, state=None, **options):
    params, carry, xs, ys = given
    state = this.init(params, carry) if state is None else state
    return this.etrace_grad(params, state, xs, ys, **SUM, **options)


@pytest.mark.parametrize(
    ("case", "name"), [("d_rtrl", "two_alif"), ("eprop_random", "leaky_tanh"), ("pp_prop", "gru")]
)
def test_it_is_the_comparison_with_bptt(case, name):
    """From zero traces, of a state that has some: with an edited program, masks and resets."""
    given, this = data(name), CASES[case].learner(name)
    params, carry, *_ = given

    def both(*given):
        used = this.init(params, carry)
        used = braintrace.State(
            used.carry, jax.tree.map(lambda v: v + 0.1, used.traces), used.steps
        )
        returned, _, info = asked(this, given, used, fidelity=True, **HOW)
        fresh = windowed(this, given, None, **HOW)
        exact = bptt_gradient(EXAMPLES[name].cell, *given, **SUM, **HOW)[0]
        return info.fidelity, returned, fresh, exact

    found, returned, fresh, exact = jitted(both, *given)
    certificates = {f"['{k}']": "approximate" for k in exact}
    report = compare_gradients(fresh, exact, certificates)
    assert found.keys() == {row.path for row in report.rows}
    for row in report.rows:
        np.testing.assert_allclose(found[row.path].cosine, row.cosine, rtol=1e-9)
        np.testing.assert_allclose(
            found[row.path].relative_error, row.relative_error, rtol=1e-7, atol=1e-12
        )
    assert max(row.relative_error for row in report.rows) > 1e-2
    assert max(apart(returned, fresh).values()) > 1e-3  # control: the traces do matter


@pytest.mark.parametrize("name", ["leaky_tanh", "gru"])
def test_a_bound_holds(name):
    """The truth is on the right side for each parameter: decays behind a sigmoid, biases that all
    samples share. And each step's gradient is within its own bound.
    """
    given, params = data(name), data(name)[0]
    exact = jitted(lambda *v: bptt_gradient(EXAMPLES[name].cell, *v, **SUM)[0], *given)
    says_something = 0
    for rank in (1, 3):
        this = braintrace.compile(
            EXAMPLES[name].cell, "sk_rtrl", given[2][0], params=params, carry=given[1], rank=rank
        )
        found, _, info = jitted(lambda *v, this=this: asked(this, v, fidelity=True), *given)
        for k, right in exact.items():
            off = jnp.linalg.norm(found[k] - right) / jnp.linalg.norm(right)
            cosine = jnp.vdot(found[k], right) / (
                jnp.linalg.norm(found[k]) * jnp.linalg.norm(right)
            )
            said = info.fidelity[f"['{k}']"]
            assert said.cosine <= cosine + 1e-9 and said.relative_error >= off - 1e-9
            says_something += bool(said.cosine > 0.5)
    assert says_something >= 4

    def step_alone(step, sample):
        mask = (jnp.arange(T)[:, None] == step) & (jnp.arange(B) == sample)
        mask = mask.astype(float)
        ours = asked(this, given, mask=mask)[0]
        return ours, bptt_gradient(EXAMPLES[name].cell, *given, **SUM, mask=mask)[0]

    every = jnp.meshgrid(jnp.arange(T), jnp.arange(B), indexing="ij")
    ours, right = jitted(jax.vmap(jax.vmap(step_alone)), *every)
    size = lambda tree: jnp.sqrt(
        sum((v**2).sum((2, 3) if v.ndim > 3 else 2) for k, v in tree.items() if k != "o")
    )
    off = size(jax.tree.map(jnp.subtract, ours, right))
    assert (off <= info.by_step.error + 1e-10).all() and (off > 1e-6).sum() > T
    if name == "gru":  # which reads its parameters as they are
        np.testing.assert_allclose(info.by_step.gradient, size(ours), rtol=1e-9)
    assert not (off <= info.by_step.error / 50).all()  # control


def test_a_bound_that_says_nothing_is_not_hidden():
    """In a network whose influence grows: -1 and inf, but for what is certified exact."""
    params, carry, xs, ys = data("gru")
    params = params | {"U": 8 * params["U"]}
    this = braintrace.compile(
        EXAMPLES["gru"].cell, "sk_rtrl", xs[0], params=params, carry=carry, rank=0
    )
    found = asked(this, (params, carry, xs, ys), fidelity=True)[2]
    assert not found.by_step.informative[-1].all()
    assert found.fidelity["['W']"] == (-1, np.inf) and found.fidelity["['o']"] == (1, 0)


def test_without_a_certificate_nothing_is_carried_and_bptt_answers():
    params, carry, xs, ys = data("leaky_tanh")
    make = lambda **options: braintrace.compile(
        EXAMPLES["leaky_tanh"].cell, "sk_rtrl", xs[0], params=params, carry=carry, rank=1, **options
    )
    this, other = make(certificate=False), make()
    given = params, carry, xs, ys
    found, state, info = asked(this, given, fidelity=True)
    assert state.traces.error is None and info.by_step is None
    assert float(info.fidelity["['U']"].cosine) > 0.9
    same, state, _ = asked(other, given)
    assert max(apart(found, same).values()) < 1e-12 and state.traces.error.shape == (B,)
    count = lambda this: len(str(jax.make_jaxpr(partial(asked, this))(given)))
    assert count(this) < count(other)


def test_off_it_is_the_same_program(monkeypatch):
    """And nothing of it is ever asked for."""
    given, this = data("two_alif"), CASES["d_rtrl"].learner("two_alif")
    program = lambda **options: str(jax.make_jaxpr(partial(asked, this, **options))(given))
    plain = program()
    with_it = program(fidelity=True)
    for name in ("exact_gradient", "compared", "bounded"):
        monkeypatch.delattr(_objective, name)
    assert program(fidelity=False) == plain
    assert len(with_it) > 1.2 * len(plain)  # control
    with pytest.raises(NameError):
        asked(this, given, mask=jnp.ones((T, B)), fidelity=True)


WAYS = {
    "itself": (lambda p: p, 1.0),
    "decay": (jax.nn.sigmoid, None),
    "broadcast": (lambda p: jnp.broadcast_to(p, (5, 3)), np.sqrt(5)),
    "mask": (lambda p: p * jnp.array([1.0, 0.0, 2.0]), 2.0),
    "square": (lambda p: p * p, None),
    "outer sum": (lambda p: p[:, None] + p, np.inf),
    "softmax": (jax.nn.softmax, np.inf),
    "product": (lambda p: p @ jnp.ones((3, 3)), np.inf),
}


@pytest.mark.parametrize("way", WAYS)
def test_how_far_an_error_is_stretched(way):
    """The spectral norm of what a weight is made of, or no number at all."""
    make, known = WAYS[way]
    p = jnp.array([0.3, -1.2, 0.7])
    flat = lambda p, h, x: [0.5 * h + (make(p) * x).sum(0).sum() * jnp.ones(2)]
    shape = jax.eval_shape(make, p).shape
    inputs = [jax.ShapeDtypeStruct(s, p.dtype) for s in ((3,), (2,), shape)]
    policy = ControlFlowPolicy(scan_unroll_limit=0, scan_descent="off")
    program, _ = stage(flat, inputs, [True, True, False], policy, 1)
    graph = analyse(program, Signature(("p",), ("h",)))
    derivative = np.asarray(jax.jacrev(make)(p)).reshape(-1, 3)
    right = np.linalg.norm(derivative, 2) if known is None else known
    if graph.sites:
        np.testing.assert_allclose(_fidelity._stretch(graph, [p], 0), right, rtol=1e-12)
    if known != np.inf:
        np.testing.assert_allclose(right, np.linalg.norm(derivative, 2), rtol=1e-12)


def test_a_single_step_has_no_fidelity():
    given, this = data("gru"), CASES["d_rtrl"].learner("gru")
    params, carry, xs, ys = given
    optimizer = optax.sgd(0.1)
    with pytest.raises(braintrace.UsageError, match="fidelity of a gradient is that of a sequence"):
        this.etrace_fit(
            params,
            optimizer.init(params),
            this.init(params, carry),
            xs,
            ys,
            optimizer=optimizer,
            mode="O",
            fidelity=True,
            **SUM,
        )
