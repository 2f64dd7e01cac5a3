"""What the front end for NNX modules refuses, and how it says so."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

import braintrace
from braintrace import CompilationError, UsageError

from .cells import IN, B, N, data
from .test_nnx_models import ZERO, Cell, Noisy, Stateful

nnx = pytest.importorskip("flax.nnx")

X = jnp.zeros((B, IN))


class WritesWeights(Stateful):
    def __call__(self, x):
        self.w.bias.set_value(self.w.bias.get_value() + 1)
        return super().__call__(x)


class Sows(Stateful):
    def __call__(self, x):
        out = super().__call__(x)
        self.sow(nnx.Intermediate, "seen", out)
        return out


class Feedforward(nnx.Module):
    def __init__(self, rngs):
        self.w = nnx.Linear(IN, N, rngs=rngs)

    def __call__(self, x):
        return self.w(x)


class NoPair(Cell):
    def __call__(self, h, x):
        return self.step(h, x)


class OtherCarry(Cell):
    def __call__(self, h, x):
        return (h, h), x


class Plain(nnx.Module):
    pass


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (
            lambda: nnx.RNN(nnx.GRUCell(IN, N, rngs=nnx.Rngs(0))),
            {},
            UsageError,
            "nnx.RNN runs whole sequences",
        ),
        (
            lambda: nnx.GRUCell(IN, N, rngs=nnx.Rngs(0)),
            {},
            UsageError,
            "carry=model.initialize_carry",
        ),
        (lambda: nnx.GRUCell, {"carry": ZERO}, UsageError, "make an instance of the class"),
        (
            lambda: WritesWeights(nnx.Rngs(0)),
            {},
            CompilationError,
            r"writes a parameter\.\n  got:      \['w.bias'\]",
        ),
        (
            lambda: Sows(nnx.Rngs(0)),
            {},
            CompilationError,
            r"made of\.\n  got:      other Variables: \['seen",
        ),
        (lambda: Feedforward(nnx.Rngs(0)), {}, CompilationError, "The model has no hidden state"),
        (lambda: NoPair(nnx.Rngs(0)), {"carry": ZERO}, CompilationError, "does not return a pair"),
        (
            lambda: OtherCarry(nnx.Rngs(0)),
            {"carry": ZERO},
            CompilationError,
            "a carry of another structure",
        ),
        (
            lambda: Cell(nnx.Rngs(0)),
            {"carry": ZERO, "wrt": nnx.BatchStat},
            UsageError,
            "no parameters to learn",
        ),
        (
            lambda: Stateful(nnx.Rngs(0)),
            {"vmap": True},
            CompilationError,
            r"would share\.\n  got:      \['h'\][\s\S]*a batch",
        ),
        (
            lambda: Cell(nnx.Rngs(0)),
            {"carry": ZERO, "params": {}},
            UsageError,
            "params: not for an NNX module",
        ),
        (
            lambda: Cell(nnx.Rngs(0)),
            {"carry": ZERO, "seed": B},
            UsageError,
            "seed: not for an NNX module",
        ),
        (
            lambda: Cell(nnx.Rngs(0)),
            {"carry": ZERO, "vjp_method": "multi-step"},
            UsageError,
            "are for brainstate modules",
        ),
        (lambda: Plain(), {}, UsageError, "cannot be called"),
    ],
)
def test_models_that_cannot_be_compiled(model, options, error, message):
    with pytest.raises(error, match=message):
        braintrace.compile(model(), "d_rtrl", X, **options)


def test_no_hint_names_a_method_that_an_nnx_learner_lacks():
    with pytest.raises(UsageError, match="an NNX learner takes single steps") as caught:
        braintrace.compile(Cell(nnx.Rngs(0)), "d_rtrl", X, carry=ZERO, vjp_method="multi-step")
    assert "update_window" not in str(caught.value) and not hasattr(
        braintrace.NNXLearner, "update_window"
    )


def test_a_mode_that_changed():
    model = Noisy(nnx.Rngs(0))
    learner = braintrace.compile(model, "d_rtrl", X)
    model.eval()
    with pytest.raises(UsageError, match=r"train\(\) and eval\(\) change it"):
        learner(X)
    assert model(X).shape  # the model itself is there for evaluation
    model.train()
    learner(X)


def test_a_wrong_call():
    xs, ys = data()
    learner = braintrace.compile(Stateful(nnx.Rngs(0)), "d_rtrl", X)
    with pytest.raises(UsageError, match="wrong shape"):
        learner(X[:, :2])
    with pytest.raises(UsageError, match="different lengths"):
        learner.etrace_grad(xs, ys[:3], loss_fn=lambda out, y: jnp.sum(out - y))
    learner = braintrace.compile(Cell(nnx.Rngs(0)), "d_rtrl", X, carry=ZERO)
    learner.carry.set_value((ZERO, ZERO))
    with pytest.raises(UsageError, match="The carry does not have the compiled structure"):
        learner(X)


def test_frameworks_are_imported_for_their_own_models_only():
    code = """
import sys, jax.numpy as jnp, braintrace
cell = lambda p, h, x: (0.5 * h + x @ p, h)
x, w, h = jnp.ones((2, 3)), jnp.ones((3, 3)), jnp.ones((2, 3))
braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
print({"flax", "equinox"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("name", "framework", "extra"),
    [("NNXLearner", "flax", "nnx"), ("EquinoxLearner", "equinox", "equinox")],
)
def test_a_missing_framework_is_named(name, framework, extra):
    code = f"""
import sys, braintrace
sys.modules["{framework}"] = None
try:
    braintrace.{name}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expected = (
        f"braintrace.{name} needs {framework}, which is not installed: pip install "
        f"'braintrace[{extra}]'"
    )
    assert done.stdout.strip() == expected, done.stderr


def test_names_of_front_ends():
    assert isinstance(braintrace.compile(Stateful(nnx.Rngs(0)), "d_rtrl", X), braintrace.NNXLearner)
    with pytest.raises(AttributeError, match="has no attribute 'Learner'"):
        braintrace.Learner  # noqa: B018
