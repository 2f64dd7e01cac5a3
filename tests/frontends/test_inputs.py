"""Example inputs that are shapes alone, and inputs of another dtype than the example's."""

import brainstate
import brainunit as u
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import braintrace

F, S = jnp.float32, jax.ShapeDtypeStruct
P, H = jnp.linspace(-1, 1, 12, dtype=F).reshape(3, 4), jnp.zeros((2, 4), F)
XS = jnp.ones((5, 2, 3), F)


@pytest.fixture(autouse=True)
def as_jax_is_by_default(single_precision):
    pass


def leaky(p, h, x):
    h = 0.9 * h + jnp.tanh(x @ p)
    return h, h


def shapes(tree):
    """In float64, which is float32 here, as it is for arrays."""
    return jax.tree.map(lambda v: S(v.shape, np.float64), tree)


def function(x, carry=H, params=P):
    learner = braintrace.compile(leaky, "d_rtrl", x, params=params, carry=carry)
    return learner.etrace_grad(P, learner.init(P, H), XS, loss_fn=jnp.mean)[0]


def equinox(x, carry=H):
    cell = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
    learner = braintrace.compile(cell, "d_rtrl", x, carry=carry, vmap=True)
    return learner.etrace_grad(cell, learner.init(cell, H), XS, loss_fn=jnp.mean)[0].weight_hh


def of_nnx(x):
    learner = braintrace.compile(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), "d_rtrl", x, carry=H)
    return learner.etrace_grad(XS, loss_fn=jnp.mean)[0]["dense_h"]["kernel"][...]


def module(x, **options):
    brainstate.random.seed(0)
    learner = braintrace.compile(
        braintrace.nn.GRUCell(3, 4), "d_rtrl", x, batch_size=2, seed=0, **options
    )
    found = learner.etrace_grad(XS, step_fn=lambda x: jnp.mean(learner(x)))
    return jnp.concatenate([jnp.ravel(v) for v in jax.tree.leaves(found)])


def mapped(x):
    return module(x, vmap=True)


@pytest.mark.parametrize("front_end", [function, equinox, of_nnx, module, mapped])
def test_shapes_are_enough(front_end):
    np.testing.assert_array_equal(front_end(shapes(XS[0])), front_end(XS[0]))
    assert not np.array_equal(front_end(XS[0]), np.zeros(()))


def test_shapes_of_params_and_carry():
    np.testing.assert_array_equal(function(*map(shapes, (XS[0], H, P))), function(XS[0]))
    np.testing.assert_array_equal(equinox(*map(shapes, (XS[0], H))), equinox(XS[0]))


def test_shapes_for_classes_and_for_the_analysis_alone():
    cell, x = braintrace.nn.GRUCell(3, 4), S((3,), F)
    brainstate.nn.init_all_states(cell)
    assert braintrace.D_RTRL(cell).compile_graph(x)(jnp.ones(3)).shape == (4,)
    groups = braintrace.compile_etrace_graph(cell, x).hidden_groups
    assert [group.hidden_paths for group in groups] == [(("h",),)]


def test_shapes_with_units():
    class Membrane(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = brainstate.ParamState(P * u.ohm)

        def init_state(self, batch_size=None, **kwargs):
            self.v = brainstate.HiddenState(jnp.zeros((batch_size, 4)) * u.mV)

        def update(self, x):
            self.v.value = 0.5 * self.v.value + braintrace.matmul(x, self.w.value)
            return self.v.value

    x = jax.eval_shape(lambda: XS[0] * u.mA)
    out = braintrace.compile(Membrane(), "d_rtrl", x, batch_size=2)(XS[0] * u.mA)
    np.testing.assert_allclose(out.to_decimal(u.mV), XS[0] @ P, rtol=1e-6)


def test_what_shapes_are_not_enough_for_says_so():
    given = {"params": P, "carry": H}
    abstract = {k: S(v.shape, F) for k, v in given.items()}
    with pytest.raises(braintrace.CompilationError, match="concrete parameters"):
        braintrace.compile(leaky, "ottt", XS[0], **abstract, leak="model")
    learner = braintrace.compile(leaky, "d_rtrl", XS[0], **abstract)
    state, reset = learner.init(P, H), jnp.zeros((5, 2), bool)
    with pytest.raises(braintrace.UsageError, match="no values to go back to"):
        learner.etrace_grad(P, state, XS, loss_fn=jnp.mean, reset=reset)
    for call in (
        lambda: learner.init(P, S(H.shape, F)),
        lambda: learner.update(P, state, S((2, 3), F)),
    ):
        with pytest.raises(braintrace.UsageError, match=r"ShapeDtypeStruct(.|\n)*pass values"):
            call()
    with pytest.raises(braintrace.UsageError, match="holds its carry"):
        cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
        braintrace.compile(cell, "d_rtrl", XS[0], carry=S(H.shape, F))


def table(p, h, x):
    """x: rows of a table."""
    h = 0.9 * h + p[x]
    return h, h


def test_rows_of_another_width():
    given = {"params": P, "carry": H}
    learner = braintrace.compile(table, "d_rtrl", jnp.zeros(2, jnp.int8), **given)
    state = learner.init(P, H)
    for dtype in (np.int8, np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64):
        out = learner.update(P, state, np.array([2, 1], dtype))[1]
        np.testing.assert_array_equal(out, P[jnp.array([2, 1])])
    for bad, said in (([2, 300], "holds 300"), ([0.5, 1], "holds 0.5"), ([np.nan, 1], "holds nan")):
        with pytest.raises(braintrace.UsageError, match=said):
            learner.update(P, state, np.array(bad))
    step = jax.jit(lambda x: learner.update(P, state, x)[1])
    with pytest.raises(braintrace.UsageError, match="not known while it is traced"):
        step(jnp.array([2, 1]))
    usual = braintrace.compile(table, "d_rtrl", jnp.zeros(2, jnp.int32), **given)
    with pytest.raises(braintrace.UsageError, match="holds 1099511627776"):
        usual.update(P, state, np.array([2**40, 0]))
    for dtype in (np.int8, np.uint16):
        out = jax.jit(lambda x: usual.update(P, state, x)[1])(jnp.array([2, 1], dtype))
        np.testing.assert_array_equal(out, P[jnp.array([2, 1])])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16, bool, np.int32, np.int64])
def test_numbers_for_float32(dtype):
    learner = braintrace.compile(leaky, "d_rtrl", XS[0], params=P, carry=H)
    state, given = learner.init(P, H), np.ones((5, 2, 3), dtype)
    for call in (
        lambda xs: learner.update(P, state, xs[0])[1],
        lambda xs: learner.etrace_grad(P, state, xs, loss_fn=jnp.mean)[0],
        lambda xs: jax.jit(lambda xs: learner.update(P, state, xs[0])[1])(xs),
    ):
        np.testing.assert_array_equal(call(given), call(XS))


def test_truths_and_numbers():
    cell = lambda p, h, x: ((h := 0.9 * h + jnp.where(x, 1.0, 0.0) @ p), h)
    learner = braintrace.compile(cell, "d_rtrl", XS[0] > 0, params=P, carry=H)
    state = learner.init(P, H)
    for dtype in (bool, np.float32, np.int64):
        out = learner.update(P, state, np.ones((2, 3), dtype))[1]
        np.testing.assert_allclose(out, XS[0] @ P, rtol=1e-6)
    with pytest.raises(braintrace.UsageError, match=r"holds 2\.0"):
        learner.update(P, state, 2 * XS[0])


@pytest.mark.parametrize("example", [0, 0.0, np.int32(0), np.float64(0), S((), jnp.int32)])
def test_a_time_index(example):
    class Clocked(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = braintrace.nn.GRUCell(3, 4)

        def update(self, x, t):
            return self.cell(x * jnp.cos(0.5 * t))

    learner = braintrace.compile(Clocked(), "d_rtrl", XS[0], example, batch_size=2)
    outs = []
    for t in (2, 2.0, np.int64(2), np.float32(2), jnp.int32(2)):
        learner.reset_state(model=True)
        outs.append(learner(XS[0], t))
    assert all(jnp.array_equal(out, outs[0]) for out in outs) and outs[0].any()
    learner.reset_state(model=True)
    assert not jnp.array_equal(learner(XS[0], 4), outs[0])  # control: it is read
    found = learner.etrace_grad(XS, jnp.arange(5), step_fn=lambda x, t: learner(x, t).sum())
    assert all(jnp.isfinite(v).all() for v in jax.tree.leaves(found))


def test_scalars_compile_one_program():
    step = lambda p, h, x: ((h := 0.9 * h + x * p), h)
    learner = braintrace.compile(step, "d_rtrl", 0.5, params=P[0], carry=H[0], batch=None)
    state = learner.init(P[0], H[0])
    for x in (1, 1.0, True, np.float32(1), np.int64(1), np.array(1.0), jnp.float32(1)):
        np.testing.assert_array_equal(learner.update(P[0], state, x)[1], P[0])
    assert learner._programs.update._cache_size() == 1


def test_arrays_of_numpy_are_those_of_jax():
    wide = [np.asarray(v, np.float64) for v in (XS[0], H, P)]
    np.testing.assert_array_equal(function(*wide), function(XS[0]))


def test_a_loss_with_a_unit_is_refused_and_a_ratio_is_not():
    cell = lambda p, h, x: ((h := 0.5 * h + x @ p), h)
    params, carry, xs = P * u.nS, H * u.pA, XS * u.mV
    learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry)
    given = params, learner.init(params, carry), xs
    with pytest.raises(braintrace.UsageError, match="The loss has a unit"):
        learner.etrace_grad(*given, loss_fn=lambda out: out.mean())
    found = learner.etrace_grad(*given, loss_fn=lambda out: (out / u.pA).mean())[0]
    plain = braintrace.compile(cell, "d_rtrl", XS[0], params=P, carry=H)
    expected = plain.etrace_grad(P, plain.init(P, H), XS, loss_fn=jnp.mean)[0]
    np.testing.assert_allclose(u.get_mantissa(found), expected, rtol=1e-6)


COUNTS = np.arange(5 * 2 * 3).reshape(5, 2, 3) % 2


def called(front_end, example):
    """(one step, the gradient of a sequence) of a learner of each front end, in the step's output
    and in leaves.
    """
    loss = {"loss_fn": jnp.mean}
    if front_end == "brainstate":
        brainstate.random.seed(0)
        model = braintrace.nn.GRUCell(3, 4)
        learner = braintrace.compile(model, "d_rtrl", example, batch_size=2)
        anew = lambda f: lambda xs: (learner.reset_state(model=True), f(xs))[1]
        step_fn = lambda x: jnp.mean(learner(x))
        sequence = lambda xs: learner.etrace_grad(xs, step_fn=step_fn)
        return anew(lambda xs: learner(xs[0])), anew(sequence), brainstate.transform.jit
    if front_end == "nnx":
        learner = braintrace.compile(
            nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), "d_rtrl", example, carry=H
        )
        anew = lambda f: lambda xs: (learner.reset_state(model=True), f(xs))[1]
        return (
            anew(lambda xs: learner(xs[0])),
            anew(lambda xs: jax.tree.leaves(learner.etrace_grad(xs, **loss)[0])),
            lambda f: f,  # nnx.jit takes the learner itself
        )
    if front_end == "equinox":
        model = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
        learner = braintrace.compile(model, "d_rtrl", example, carry=H, vmap=True)
    else:
        model = P
        learner = braintrace.compile(leaky, "d_rtrl", example, params=P, carry=H)
    state = learner.init(model, H)
    return (
        lambda xs: learner.update(model, state, xs[0])[1],
        lambda xs: jax.tree.leaves(learner.etrace_grad(model, state, xs, **loss)[0]),
        jax.jit,
    )


@pytest.mark.parametrize("front_end", ["function", "equinox", "nnx", "brainstate"])
def test_spikes_and_counts_at_every_front_end(front_end):
    """A float example, and inputs of other dtypes, in steps and sequences, eager and jitted; of
    which an example of whole numbers takes whole ones alone.
    """
    step, sequence, jit = called(front_end, XS[0])
    given = COUNTS.astype(np.float32)
    for call in (step, sequence, jit(step), jit(sequence)):
        expected = jax.tree.leaves(call(given))
        for dtype in (np.int32, bool, np.uint8, np.float64):
            for found, value in zip(
                jax.tree.leaves(call(COUNTS.astype(dtype))), expected, strict=True
            ):
                np.testing.assert_array_equal(found, value)
        others = jax.tree.leaves(call(given + 1))
        assert not np.allclose(others[0], expected[0])  # control
    step, sequence, jit = called(front_end, COUNTS[0])
    # the values that brainstate's step_fn is given are traced; NNX has no jit here
    traced = {"nnx": [], "brainstate": [jit(step), sequence]}.get(front_end, [jit(step)])
    for call in [step, *([] if sequence in traced else [sequence])]:
        expected = jax.tree.leaves(call(COUNTS))
        for xs in (given, given.astype(np.float64), jnp.asarray(given), COUNTS > 0):
            np.testing.assert_array_equal(jax.tree.leaves(call(xs))[0], expected[0])
        with pytest.raises(braintrace.UsageError, match=r"holds 0\.5"):
            call(given + 0.5)
    for call in traced:
        with pytest.raises(braintrace.UsageError, match="not known while it is traced"):
            call(given)


def of_magnitude(p, h, x):
    return leaky(p, h, u.get_mantissa(x))


def scaled(p, h, x):
    return leaky(p, h, x / u.mV if isinstance(x, u.Quantity) else 3 * x)


class Magnitude(brainstate.nn.Module):
    def __init__(self, step):
        super().__init__()
        self.w, self.step = brainstate.ParamState(P), step

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 4)))

    def update(self, x):
        self.h.value, out = self.step(self.w.value, self.h.value, x)
        return out


def test_a_unit_that_the_step_takes_off():
    learner = braintrace.compile(of_magnitude, "d_rtrl", XS[0], params=P, carry=H)
    state = learner.init(P, H)
    for call in (
        lambda xs: learner.update(P, state, jax.tree.map(lambda v: v[0], xs))[1],
        lambda xs: learner.etrace_grad(P, state, xs, loss_fn=jnp.mean)[0],
        lambda xs: jax.jit(lambda xs: learner.etrace_evolve(P, state, xs)[1])(xs),
    ):
        np.testing.assert_array_equal(call(2 * XS * u.mV), call(2 * XS))
        assert not np.allclose(call(2 * XS), call(XS))  # control
    module = braintrace.compile(Magnitude(of_magnitude), "d_rtrl", XS[0], batch_size=2)
    for call in (
        lambda xs: module(xs[0]),
        lambda xs: module.etrace_grad(xs, step_fn=lambda x: module(x).mean())["w",],
        lambda xs: brainstate.transform.jit(lambda: module.update(braintrace.MultiStepData(xs)))(),
    ):
        found = []
        for xs in (2 * XS * u.mV, 2 * XS):
            module.reset_state(model=True)
            found.append(call(xs))
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("step", [leaky, scaled])
def test_a_unit_that_the_step_does_not_take_or_reads_is_refused(step):
    learner = braintrace.compile(step, "d_rtrl", XS[0], params=P, carry=H)
    with pytest.raises(braintrace.UsageError, match="does not have the compiled structure"):
        learner.update(P, learner.init(P, H), XS[0] * u.mV)
    module = braintrace.compile(Magnitude(step), "d_rtrl", XS[0], batch_size=2)
    with pytest.raises(braintrace.UsageError, match=r"wrong unit(.|\n)*compile, with the unit"):
        module(XS[0] * u.mV)
    with pytest.raises(braintrace.UsageError, match="The input does not have the compiled struct"):
        module([XS[0], XS[0]])
    assert module.running_index.value == 0 and not module.model.h.value.any()
