"""What the functional front end says when it is used wrongly: got, expected, what to do, where."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.nn import sigmoid

from braintrace.core._errors import CompilationError, NotSupportedError, UsageError
from zoo import loss

from ._front_end import assert_same, data, learner, learner_for, summed

PARAMS = {"a": jnp.zeros(4), "W": jnp.ones((3, 4))}
H, X = jnp.zeros((2, 4)), jnp.ones((2, 3))


def cell(p, h, x):
    h = sigmoid(p["a"]) * h + x @ p["W"]
    return h, h


@pytest.fixture(scope="module")
def made():
    this = learner_for(cell, PARAMS, H, X)
    return this, this.init(PARAMS, H)


@contextlib.contextmanager
def says(error, *parts):
    """A context that asserts that an error is raised and that its text holds every part."""
    with pytest.raises(error) as info:
        yield
    for part in parts:
        assert part in str(info.value), str(info.value)


# Arguments
# --------------------------------------------------------------------------------------------------


def test_wrong_shapes(made):
    this, state = made
    with says(
        UsageError,
        "The input x has a wrong shape",
        "got:      shape (2, 5)",
        "expected: shape (2, 3)",
        "do:",
    ):
        this.update(PARAMS, state, jnp.ones((2, 5)))
    with says(UsageError, "The params has a wrong shape at ['W']", "(3, 5)", "(3, 4)"):
        this.update(PARAMS | {"W": jnp.ones((3, 5))}, state, X)
    with says(UsageError, "The carry has a wrong shape", "(3, 4)", "(2, 4)"):
        this.init(PARAMS, jnp.zeros((3, 4)))
    with says(UsageError, "The input sequence has a wrong shape", "(5, 3, 2)", "(5, 2, 3)"):
        this.etrace_evolve(PARAMS, state, jnp.ones((5, 3, 2)))


def test_wrong_structures(made):
    this, state = made
    with says(UsageError, "The params does not have the compiled structure", "'b'", "expected:"):
        this.update(PARAMS | {"b": jnp.zeros(4)}, state, X)
    with says(UsageError, "The input x does not have the compiled structure"):
        this.update(PARAMS, state, {"x": X})
    with says(UsageError, "The carry does not have the compiled structure"):
        this.init(PARAMS, (H, H))


def test_wrong_dtypes(made):
    this, state = made
    with says(UsageError, "The input x has a wrong dtype", "complex", "float64", "convert it"):
        this.update(PARAMS, state, X.astype(complex))
    with says(UsageError, "The carry has a wrong dtype", "complex"):
        this.init(PARAMS, H.astype(complex))


def test_sequences(made):
    this, state = made
    xs = jnp.ones((5, 2, 3))
    with says(UsageError, "The sequences have different lengths", "5 inputs and 4 targets"):
        this.etrace_grad(PARAMS, state, xs, jnp.ones((4, 2, 4)), loss_fn=loss)
    with says(UsageError, "The sequence has no common time axis", "at least one step"):
        this.etrace_grad(PARAMS, state, xs[:0], loss_fn=jnp.sum)
    with says(UsageError, "Unknown reduction", "'average'", "'mean' or 'sum'"):
        this.etrace_grad(PARAMS, state, xs, loss_fn=jnp.sum, reduction="average")
    for window in (0, -3, 2.0, True, "all"):
        with says(UsageError, "Invalid window", repr(window)):
            this.etrace_grad(PARAMS, state, xs, loss_fn=jnp.sum, window=window)


def test_masks_and_resets(made):
    this, state = made
    xs, ys = jnp.ones((5, 2, 3)), jnp.zeros((5, 2, 4))
    with says(
        UsageError, "The mask does not fit the loss", "(5, 2)", "one loss per sample", "scalar loss"
    ):
        this.etrace_grad(PARAMS, state, xs, ys, loss_fn=summed, mask=jnp.ones((5, 2)))
    with says(UsageError, "The mask does not fit the loss", "(5,)", "(5, 2)"):
        this.etrace_grad(PARAMS, state, xs, ys, loss_fn=loss, mask=jnp.ones(5))
    with says(UsageError, "The loss of a step has too many axes", "(2, 4)", "one value per sample"):
        this.etrace_grad(PARAMS, state, xs, ys, loss_fn=lambda out, y: out - y)
    with says(UsageError, "The reset has a wrong shape", "(5,)", "(5, 2)"):
        this.etrace_grad(PARAMS, state, xs, ys, loss_fn=loss, reset=jnp.zeros(5, bool))
    alone = learner_for(lambda p, h, x: (0.5 * h + x, h), {}, jnp.zeros(()), jnp.zeros(()))
    with says(UsageError, "The batch that reset refers to is not known"):
        alone.etrace_grad(
            {},
            alone.init({}, jnp.zeros(())),
            jnp.ones(5),
            loss_fn=lambda o: o,
            reset=jnp.zeros((5, 2), bool),
        )


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_sample():
    params, carry, xs, ys = data("alif")
    this = learner("alif")
    state = this.init(params, carry)
    spoiled = ys.at[3, 1].set(jnp.nan)
    with says(UsageError, "The loss is not finite", "nan at step 3, sample 1", "etrace_evolve"):
        this.etrace_grad(params, state, xs, spoiled, loss_fn=loss)
    with says(UsageError, "nan at step 3"):
        this.etrace_grad(params, state, xs, spoiled, loss_fn=summed)
    with says(UsageError, "inf at step 2, sample 0"):
        this.etrace_grad(params, state, xs, ys.at[2, 0].set(jnp.inf), loss_fn=loss)
    _, _, info = jax.jit(lambda ys: this.etrace_grad(params, state, xs, ys, loss_fn=loss))(spoiled)
    assert jnp.isnan(info.losses[3, 1])  # under jit the losses tell
    again = this.etrace_grad(params, state, xs, ys, loss_fn=loss)[0]
    clean = this.etrace_grad(params, this.init(params, carry), xs, ys, loss_fn=loss)[0]
    assert_same(again, clean)  # the state is as before


# Cells
# --------------------------------------------------------------------------------------------------


def test_a_while_loop_that_touches_the_state():
    def looping(p, h, x):
        h = lax.while_loop(lambda h: jnp.sum(h) < 1, lambda h: h + x @ p["W"], h)
        return h, h

    with says(
        NotSupportedError,
        "A while loop in the step touches",
        "lax.scan",
        "constant bounds",
        "test_errors.py:",
        "looping",
    ):
        learner_for(looping, PARAMS, H, X)


def test_a_while_loop_that_touches_neither_parameters_nor_state_stays():
    def counting(p, h, x):
        n = lax.while_loop(lambda n: n < 3, lambda n: n + 1, 0)
        y, _ = lax.while_loop(lambda s: jnp.sum(s[1]) < 3, lambda s: (0.5 * s[0], s[1] + 1), (x, 0))
        return cell(p, n * h / 3, y)

    this = learner_for(counting, PARAMS, H, X)
    assert [r.exactness for r in this.graph.parameters] == ["exact", "exact"]


def test_a_loop_that_is_too_long():
    def substeps(p, h, x):
        h, _ = lax.scan(lambda h, _: (0.9 * h + x @ p["W"], None), h, None, length=200)
        return h, h

    with says(
        NotSupportedError,
        "too long to unroll",
        "200 sub-steps",
        "at most 64 (option unroll_limit)",
        "unroll_limit=200",
        "test_errors.py:",
        "substeps",
    ):
        learner_for(substeps, PARAMS, H, X)
    this = learner_for(substeps, {"W": PARAMS["W"]}, H, X, unroll_limit=200)
    assert this.graph.exactness("['W']") == "exact"


def test_a_carry_that_changes():
    with says(
        CompilationError,
        "The step changes the shape or dtype of the state",
        "[2, 3]",
        "[2, 4]",
        "do:",
    ):
        learner_for(lambda p, h, x: (x, h), PARAMS, H, X)
    with says(
        CompilationError, "The step changes the shape or dtype of the state", "float32", "float64"
    ):
        learner_for(lambda p, h, x: (h.astype(jnp.float32), h), PARAMS, H, X)
    with says(CompilationError, "['h']", "[2, 3]"):
        learner_for(lambda p, c, x: ({"h": x}, x), PARAMS, {"h": H}, X)
    with says(CompilationError, "a carry of another structure", "the second value is like"):
        learner_for(lambda p, h, x: ((h, h), h), PARAMS, H, X)
    with says(
        CompilationError, "a carry of another structure", "cell(params, carry, x) -> (carry, out)"
    ):
        learner_for(lambda p, h, x: ((h, h), x), PARAMS, H, X)


def test_a_cell_that_returns_something_else():
    with says(CompilationError, "The cell does not return a pair", "(carry, out)"):
        learner_for(lambda p, h, x: h, PARAMS, H, X)
    with says(CompilationError, "The cell does not return a pair", "3 values"):
        learner_for(lambda p, h, x: (h, h, h), PARAMS, H, X)


def test_a_loss_function_that_does_not_fit_its_targets(made):
    this, state = made
    with says(UsageError, "loss_fn does not take what it is given", "missing", "'target'"):
        this.etrace_grad(PARAMS, state, jnp.ones((5, 2, 3)), loss_fn=loss)


def test_an_unknown_parameter_path(made):
    with pytest.raises(KeyError, match="the parameters are"):
        made[0].graph.exactness("b")
