"""Mistakes of every day at every front end: each gets an error that says what to do, or works."""

import contextlib
import inspect

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import braintrace
from braintrace import BrainTraceError, UsageError

T, B, I, N, O = 6, 4, 3, 5, 2


pytestmark = pytest.mark.usefixtures("single_precision_throughout")
XS = np.random.default_rng(0).normal(size=(T, B, I)).astype(np.float32)
YS = np.ones((T, B, N), np.float32)
H = np.zeros((B, N), np.float32)
PARAMS = {"W": np.full((I, N), 1 / I, np.float32)}


def cell(params, h, x):
    h = 0.9 * h + jnp.tanh(x @ params["W"])
    return h, h


def loss(out, *target):
    return jnp.mean(out**2, -1)


def key():
    return jax.random.key(0)


class Network(brainstate.nn.Module):
    def __init__(self, dropped=False):
        super().__init__()
        self.rnn = brainstate.nn.GRUCell(I, N)
        self.drop = brainstate.nn.Dropout(0.5) if dropped else lambda x: x

    def update(self, x):
        return self.drop(self.rnn(x))


class NNXCell(nnx.Module):
    """`kind` is what the call does with its results."""

    def __init__(self, kind=lambda carry, out: (carry, out)):
        self.cell, self.kind = nnx.GRUCell(I, N, rngs=nnx.Rngs(0)), kind
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, carry, x):
        return self.kind(*self.cell(carry, x))


class EquinoxCell(eqx.Module):
    cell: eqx.nn.GRUCell
    kind: object = eqx.field(static=True)

    def __init__(self, kind=lambda carry, out: (carry, out)):
        self.cell, self.kind = eqx.nn.GRUCell(I, N, key=key()), kind

    def __call__(self, x, h):
        h = self.cell(x, h)
        return self.kind(h, h)


def function(step=cell, x=XS[0], algorithm="d_rtrl", **given):
    return braintrace.compile(step, algorithm, x, **{"params": PARAMS, "carry": H, **given})


def of_nnx(model=None, x=XS[0], **given):
    given = {"carry": H, **given}
    given = {k: v for k, v in given.items() if v is not None}
    return braintrace.compile(NNXCell() if model is None else model, "d_rtrl", x, **given)


def of_equinox(model=None, x=XS[0], **given):
    model = EquinoxCell() if model is None else model
    return braintrace.compile(model, "d_rtrl", x, **{"carry": H, "vmap": True, **given})


def of_brainstate(model=None, x=XS[0], **given):
    model = Network() if model is None else model
    return braintrace.compile(model, "d_rtrl", x, **{"batch_size": B, **given})


@pytest.fixture(scope="module")
def made(single_precision_throughout):
    """A learner of each front end, and how its sequence gradient is called."""
    learner, module = function(), EquinoxCell()
    of_module = of_equinox(module)
    state, of_modules = learner.init(PARAMS, H), of_module.init(module, H)
    return {
        "function": (learner, (PARAMS, state)),
        "equinox": (of_module, (module, of_modules)),
        "nnx": (of_nnx(), ()),
        "brainstate": (of_brainstate(), ()),
    }


FRONT_ENDS = "function", "equinox", "nnx", "brainstate"
SWAPPED = "return the new carry first"
SEQUENCE = "The example is not that of one step."
ONE_SAMPLE = "pass vmap=True"
no_carry = lambda h, out: out
swapped = lambda h, out: (out[..., :O], h)

#: (what is wrong, the call, pieces of the message)
AT_COMPILE = [
    ("nnx without its carry", lambda: of_nnx(carry=None), "The carry is missing", "pass carry="),
    (
        "an nnx cell without its carry",
        lambda: of_nnx(nnx.GRUCell(I, N, rngs=nnx.Rngs(0)), carry=None),
        "The carry is missing",
        "initialize_carry",
    ),
    ("equinox without vmap", lambda: of_equinox(vmap=False), ONE_SAMPLE, "float32[4, 5]"),
    (
        "an lstm without vmap",
        lambda: of_equinox(eqx.nn.LSTMCell(I, N, key=key()), carry=(H, H), vmap=False),
        ONE_SAMPLE,
    ),
    (
        "a sequence, without vmap",
        lambda: of_equinox(x=XS, vmap=False),
        ONE_SAMPLE,
        "the inputs of one step",
    ),
    ("a sequence: function", lambda: function(x=XS), SEQUENCE, "float32[6, 4, 3]", "x[0]"),
    ("a sequence: one sample", lambda: function(x=XS[:, 0], carry=H[0]), SEQUENCE),
    ("a sequence: nnx", lambda: of_nnx(x=XS), SEQUENCE),
    ("a sequence: equinox", lambda: of_equinox(x=XS), "several sizes", "6 by axis 0 of input"),
    ("a sequence: brainstate", lambda: of_brainstate(x=XS), SEQUENCE),
    ("a sequence: brainstate, mapped", lambda: of_brainstate(x=XS, vmap=True), SEQUENCE),
    ("swapped: function", lambda: function(lambda p, h, x: swapped(*cell(p, h, x))), SWAPPED),
    (
        "swapped: a tree",
        lambda: function(lambda p, h, x: (cell(p, h["v"], x)[0], h), carry={"v": H}),
        SWAPPED,
    ),
    ("swapped: nnx", lambda: of_nnx(NNXCell(swapped)), SWAPPED),
    ("swapped: equinox", lambda: of_equinox(EquinoxCell(swapped)), SWAPPED),
    (
        "no pair: function",
        lambda: function(lambda p, h, x: h),
        "not return a pair",
        "float32[4, 5]",
    ),
    ("no pair: none", lambda: function(lambda p, h, x: None), "not return a pair", "None"),
    ("no pair: nnx", lambda: of_nnx(NNXCell(no_carry)), "not return a pair", "(carry, out)"),
    ("no pair: equinox", lambda: of_equinox(EquinoxCell(lambda *v: (*v, 0.0))), "nor a pair"),
    (
        "the carry in front",
        lambda: function(lambda h, p, x: cell(p, h, x)),
        "another order",
        "cell(carry, params, x)",
    ),
    (
        "the input in front of the carry",
        lambda: function(lambda p, x, h: cell(p, h, x)),
        "another order",
        "cell(params, x, carry)",
    ),
    ("params for carry", lambda: function(params=H, carry=PARAMS), "each other's place"),
    ("no parameters", lambda: function(params=None), "The step fails", "TypeError", "at:"),
    ("modules as parameters", lambda: function(params=[eqx.nn.Linear(I, N, key=key())]), "at:"),
    ("dropout without fit", lambda: of_brainstate(Network(True)), "'fit'", "context(fit=...)"),
    ("a text as model", lambda: braintrace.compile("gru", "d_rtrl", XS[0]), "Not a model", "str"),
    ("model and algorithm", lambda: braintrace.compile("d_rtrl", cell, XS[0]), "the model first"),
    ("a list as model", lambda: braintrace.compile([Network()], "d_rtrl", XS[0]), "Not a model"),
    ("a class as model", lambda: of_brainstate(Network), "an instance of the class"),
    ("an algorithm with a typo", lambda: function(algorithm="d_rtl"), "pass 'd_rtrl'"),
    ("another one", lambda: function(algorithm="eprops"), "pass 'eprop'"),
    ("an unknown one", lambda: function(algorithm="bptt"), "pass one of these names"),
    ("no algorithm", lambda: function(algorithm=None), "Unknown algorithm", "a NoneType"),
    ("another class", lambda: function(algorithm=dict), "Unknown algorithm"),
]


@pytest.mark.parametrize(
    ("call", "texts"), [(c, t) for _, c, *t in AT_COMPILE], ids=[row[0] for row in AT_COMPILE]
)
def test_compile_says_what_to_do(call, texts):
    with pytest.raises(BrainTraceError) as caught:
        call()
    for text in ("got:", "expected:", "do:", *texts):
        assert text in str(caught.value)


def test_the_error_of_a_step_is_the_cause_and_names_the_line():
    def step(params, h, x):
        return h, x @ params["V"]

    with pytest.raises(braintrace.CompilationError, match="KeyError: 'V'") as caught:
        function(step)
    assert isinstance(caught.value.__cause__, KeyError)
    assert f"{__file__}:{inspect.getsourcelines(step)[1] + 1} (step)" in str(caught.value)


def test_what_is_said_of_a_sequence_was_tried():
    """A step that fails in any case is not said to be given a sequence."""
    with pytest.raises(braintrace.CompilationError, match="The step fails at the example"):
        function(lambda p, h, x: (h @ jnp.ones((2, 2)), h), x=XS)
    model = Network()
    with pytest.raises(BrainTraceError, match="not that of one step"):
        of_brainstate(model, x=XS)
    assert of_brainstate(model)(XS[0]).shape == (B, N)  # the model is as before


def test_an_algorithm_is_named_in_any_way():
    for name in ("d_rtrl", "D_RTRL", "D-RTRL", braintrace.D_RTRL):
        assert function(algorithm=name).rule.name == "D-RTRL"


def says(call, *texts):
    with pytest.raises(UsageError) as caught:
        call()
    for text in ("got:", "expected:", "do:", *texts):
        assert text in str(caught.value)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_calls_of_a_learner(made, front_end):
    learner, first = made[front_end]
    gradient = lambda *given, **options: learner.etrace_grad(*first, *given, **options)
    says(lambda: gradient(XS, loss), "The loss is said in one way.", "loss_fn=f")
    says(lambda: gradient(XS), "The loss is said in one way.", "neither")
    says(lambda: gradient(XS, loss_fn=loss, step_fn=loss), "loss_fn and step_fn")
    says(lambda: gradient(XS[:, :2], loss_fn=loss), "wrong shape", "2, 3)", "4, 3)")
    says(lambda: gradient(XS.swapaxes(0, 1), loss_fn=loss), "wrong shape")
    step = getattr(learner, "update", learner)
    says(lambda: step(*first, XS), "wrong shape", "(6, 4, 3)")
    says(lambda: step(*first, XS[0, :2]), "wrong shape", "(2, 3)")
    if front_end == "nnx":
        says(lambda: learner.value_and_grad(XS[0], loss), "The loss is said in one way.")


def test_the_front_ends_take_the_same_arguments(made):
    """But for what one of them has for programs of the PyPI package."""
    compatible = {"chunk_size", "weights", "loss_output", "return_value", "return_outputs"}
    compatible.add("return_info")  # which the others always return

    def named(name):
        given = {k: inspect.signature(getattr(v, name)).parameters for k, (v, _) in made.items()}
        kinds = {k: [n for n, p in v.items() if p.kind is p.KEYWORD_ONLY] for k, v in given.items()}
        return [set(names) - compatible for names in kinds.values()]

    for name in ("etrace_grad", "etrace_evolve", "memory_plan"):
        found = named(name)
        common = set.intersection(*found)
        assert common >= {"etrace_grad": {"loss_fn", "step_fn", "mask", "reset", "window"}}.get(
            name, common
        )
        extra = set.union(*found) - common
        # brainstate's step_fn of an evolution, and its drivers, which XLA divides in any case; NNX
        # and brainstate know whether traces are formed
        known = {"etrace_evolve": {"step_fn"}, "memory_plan": {"traces"}}
        assert extra <= {**known, "etrace_grad": {"shardings"}}[name]


# What works
# ------------------------------------------------------------------------------------------------


def test_a_loss_of_the_output_at_brainstate():
    """`loss_fn` is `step_fn` around the learner's call, with every option."""
    brainstate.random.seed(0)
    learner = of_brainstate()
    distance = lambda out, y: (jnp.mean((out - y) ** 2, -1), out)
    given = {"mask": np.arange(T * B).reshape(T, B) % 3, "has_aux": True, "return_value": True}
    given |= {"reset": np.arange(T * B).reshape(T, B) % 5 == 0, "return_state": False}
    for window in (1, None):
        found = learner.etrace_grad(XS, YS, loss_fn=distance, window=window, **given)
        step = lambda x, y: distance(learner(x), y)
        expected = learner.etrace_grad(XS, YS, step_fn=step, window=window, **given)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert learner.check_gradients(XS, YS, loss_fn=lambda out, y: distance(out, y)[0])
    learner.etrace_grad(XS, loss_fn=loss)
    before = len(learner._steps._made)
    learner.etrace_grad(XS, loss_fn=loss)
    assert len(learner._steps._made) == before  # one loss function is one step


def test_an_optax_optimiser_at_brainstate():
    """Three calls with one optimiser are three updates of a loop by hand; its state goes on."""
    optimizer, both = optax.adam(0.05), []
    for mode in ("A", "O"):
        for by_hand in (False, True):
            brainstate.random.seed(0)
            learner = of_brainstate()
            if not by_hand:
                for _ in range(3):
                    learner.etrace_fit(XS, YS, loss_fn=loss, optimizer=optimizer, mode=mode)
            else:
                params = {k: s.value for k, s in learner.param_states.items()}
                moments = optimizer.init(params)
                pieces = [slice(None)] if mode == "A" else [slice(t, t + 1) for t in range(T)]
                for piece in 3 * pieces:
                    found = learner.etrace_grad(XS[piece], YS[piece], loss_fn=loss)
                    updates, moments = optimizer.update(found, moments, params)
                    params = optax.apply_updates(params, updates)
                    for k, s in learner.param_states.items():
                        s.value = params[k]
            both.append({k: s.value for k, s in learner.param_states.items()})
    for found, expected in (both[:2], both[2:]):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    moved = [a - b for a, b in zip(*map(jax.tree.leaves, both[::2]), strict=True)]
    assert max(np.abs(v).max() for v in moved) > 1e-2  # control: the modes are two


def test_an_optax_optimiser_under_jit():
    learner, optimizer = of_brainstate(), optax.adam(0.05)
    fit = lambda xs: learner.etrace_fit(xs, loss_fn=loss, optimizer=optimizer).mean()
    says(lambda: brainstate.transform.jit(fit)(XS), "inside a transformation")
    learner = of_brainstate()
    first = fit(XS)
    compiled = brainstate.transform.jit(fit)
    assert [compiled(XS) for _ in range(20)][-1] < first


@pytest.mark.parametrize("mode", ["A", "O"])
@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(0.1, momentum=0.9), optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))],
    ids=["momentum", "chain"],
)
def test_an_optimiser_made_of_all_parameters(optimizer, mode):
    """`optimizer.init(params)` does what `optimizer.init(learner.trained(params))` does."""
    params = {**PARAMS, "gain": np.ones(N, np.float32), "shift": np.arange(3)}

    def step(p, h, x):
        h = 0.9 * h + jnp.tanh(x @ p["W"]) * p["gain"] + p["shift"][0]
        return h, h

    learner = function(step, params=params, trainable="*W*")
    given = {"loss_fn": loss, "optimizer": optimizer, "mode": mode}
    results = []
    for made_of in (params, learner.trained(params)):
        now, moments, state = params, optimizer.init(made_of), learner.init(params, H)
        structure = jax.tree.structure(moments)
        for _ in range(2):
            now, moments, state, _ = learner.etrace_fit(now, moments, state, XS, **given)
            assert jax.tree.structure(moments) == structure
        results.append(now)
    for name, value in results[1].items():
        np.testing.assert_array_equal(results[0][name], value)
    assert np.abs(results[0]["W"] - params["W"]).max() > 1e-3
    np.testing.assert_array_equal(results[0]["gain"], params["gain"])


class Broken:
    """An optimiser that fails."""

    def update(self, *given):
        raise ValueError("it is broken")


def test_optimisers_that_do_not_fit(made):
    (learner, first), tx = made["function"], optax.sgd(0.1, momentum=0.9)
    fit = lambda moments, tx: learner.etrace_fit(
        first[0], moments, first[1], XS, loss_fn=loss, optimizer=tx
    )
    says(lambda: fit((), tx), "does not take the gradients", "learner.trained(params)")
    of_module = made["nnx"][0]
    tuner = nnx.Optimizer(of_module.model, tx, wrt=nnx.Param)
    says(lambda: fit((), tuner), "does not take the gradients")
    known = nnx.Not(nnx.RngState)
    state = lambda: [np.array(v) for v in jax.tree.leaves(nnx.state(of_module, known))]
    before = state()
    says(
        lambda: of_module.etrace_fit(XS, loss_fn=loss, optimizer=tx),
        "no optimizer of NNX",
        "nnx.Optimizer(model",
    )
    other = nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    says(lambda: of_module.etrace_fit(XS, loss_fn=loss, optimizer=other), "does not take")
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_array_equal(a, b)
    learner = made["brainstate"][0]
    says(
        lambda: learner.etrace_fit(XS, loss_fn=loss, optimizer="adam"),
        "This is no optimiser",
        "optax.adam",
    )
    before = {k: jax.tree.map(np.array, s.value) for k, s in learner.states().items()}
    says(lambda: learner.etrace_fit(XS, loss_fn=loss, optimizer=Broken()), "it is broken")
    for name, value in before.items():
        now = learner.states()[name].value
        for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(now), strict=True):
            np.testing.assert_array_equal(a, b)


# Settings
# ------------------------------------------------------------------------------------------------


def test_the_mode_of_a_brainstate_model():
    """`fit` is read when the model is compiled: another one at a call would not be obeyed."""
    with brainstate.environ.context(fit=True):
        dropped, plain = of_brainstate(Network(True)), of_brainstate()
    assert (dropped(XS[0]) == 0).any()  # a setting that has ended is no contradiction
    with brainstate.environ.context(fit=False):
        says(lambda: dropped(XS[0]), "'fit' is not the one", "fit=True")
        says(lambda: dropped.etrace_grad(XS, loss_fn=loss), "'fit' is not the one")
        assert plain(XS[0]).shape == (B, N)  # a step that does not depend on it
    with brainstate.environ.context(fit=True):
        dropped(XS[0])


class Clocked(brainstate.nn.Module):
    """A step under the clock of the environment, which it reads or leaves alone."""

    def __init__(self, reads):
        super().__init__()
        self.w, self.reads = brainstate.ParamState(np.eye(I, N)), reads

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, N)))

    def update(self, x, i=None):
        with brainstate.environ.context(**({} if i is None else {"t": 1.0 * i})):
            t = brainstate.environ.get("t", 1.0)
            self.h.value = 0.5 * self.h.value + x @ self.w.value * (t if self.reads else 1)
        return self.h.value


def test_a_clock_of_the_environment(monkeypatch):
    """What the step reads when it is compiled stays: another time at a call is refused, in jit and
    in a driver too, where it is a traced number; a time that is an input is obeyed.
    """

    def step_loss(i, x):
        with brainstate.environ.context(t=1.0 * i):
            return learner(x).sum()

    steps = np.arange(len(XS))
    with brainstate.environ.context(t=1.0):
        learner = braintrace.compile(Clocked(True), "d_rtrl", XS[0], batch_size=B)
        free = braintrace.compile(Clocked(False), "d_rtrl", XS[0], batch_size=B)
    assert learner(XS[0]).any()
    with brainstate.environ.context(t=np.float64(1.0)):
        assert learner(XS[0]).any()
    with brainstate.environ.context(t=2.0):
        says(lambda: learner(XS[0]), "'t' is not the one", "t=2.0", "make it an input")
        says(lambda: learner.etrace_evolve(XS), "t=1.0: the step depends on it")
        assert free(XS[0]).any()
    says(lambda: learner.etrace_grad(steps, XS, step_fn=step_loss), "'t' is not the one")
    jitted = brainstate.transform.jit(step_loss)
    says(lambda: jitted(1, XS[0]), "'t' is not the one")

    default = braintrace.compile(Clocked(True), "d_rtrl", XS[0], batch_size=B)
    with brainstate.environ.context(t=2.0, other=3.0):
        says(lambda: default(XS[0]), "t=None: the step depends on it")
    with brainstate.environ.context(other=3.0):
        assert default(XS[0]).any()

    told = braintrace.compile(Clocked(True), "d_rtrl", XS[0], 0, batch_size=B)
    outs = told.etrace_evolve(XS, steps, return_outputs=True)
    expected, h = [], 0.0
    for t, x in enumerate(XS):
        h = 0.5 * h + t * x @ np.eye(I, N)
        expected.append(h)
    np.testing.assert_allclose(outs, expected, rtol=1e-5)

    monkeypatch.setattr(type(learner.functional.settings), "check", lambda self: None)
    with brainstate.environ.context(t=2.0):  # the control: the compiled time stays
        learner.reset_state(model=True)
        frozen = np.asarray(learner(XS[0]))
    np.testing.assert_allclose(frozen, XS[0] @ np.eye(I, N), rtol=1e-5)


def test_the_modes_of_nnx_and_equinox():
    learner = of_nnx()
    learner.model.eval()
    says(lambda: learner(XS[0]), "train() and eval() change it")

    class Dropped(eqx.Module):
        cell: eqx.nn.GRUCell
        drop: eqx.nn.Dropout

        def __call__(self, x, h):
            h = self.cell(x, h)
            return h, self.drop(h, key=key())

    model = Dropped(eqx.nn.GRUCell(I, N, key=key()), eqx.nn.Dropout(0.5))
    other = of_equinox(model)
    state = other.init(model, H)
    says(lambda: other.update(eqx.nn.inference_mode(model), state, XS[0]), "drop.inference")


def test_64_bits_switched_after_compiling(made):
    learner, first = made["function"]
    narrow = learner.etrace_grad(*first, XS, loss_fn=loss)
    with jax.enable_x64(True):
        found = learner.etrace_grad(*first, XS.astype(np.float64), loss_fn=loss)
        for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(found), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5)
        wide = lambda tree: jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), tree)
        params, h, xs = map(wide, (PARAMS, H, XS))
        learner = function(params=params, carry=h, x=xs[0])
        state = learner.init(params, h)
    for call in (
        lambda: learner.update(params, state, xs[0]),
        lambda: learner.etrace_grad(params, state, xs, loss_fn=loss),
        lambda: learner.etrace_evolve(params, state, xs),
        lambda: learner.init(params, h),
    ):
        says(call, "64-bit mode was on", "jax_enable_x64")
    with jax.enable_x64(True):
        assert learner.update(params, state, xs[0])[1].dtype == jnp.float64


def everything(learner, first, xs, ys, mask, reset):
    """Calls of a learner, for a setting that must not disturb it."""
    getattr(learner, "update", learner)(*first, xs[0])
    for window in (1, None):
        learner.etrace_grad(*first, xs, ys, loss_fn=loss, window=window)
    learner.etrace_grad(*first, xs, ys, loss_fn=loss, mask=mask, reset=reset)
    learner.etrace_evolve(*first, xs)


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop", "ostl_recurrent"])
def test_rank_promotion_is_never_needed(algorithm):
    options = {"decay_or_rank": 0.5} if algorithm == "pp_prop" else {}
    with jax.numpy_rank_promotion("raise"):
        learner = function(algorithm=algorithm, **options)
        state = learner.init(PARAMS, H)
        mask, reset = np.ones((T, B)), np.zeros((T, B), bool)
        everything(learner, (PARAMS, state), XS, YS, mask, reset)
        learner.check_gradients(PARAMS, state, XS, loss_fn=loss)
        jax.grad(lambda p: learner.update(p, state, XS[0])[1].sum())(PARAMS)
        with pytest.raises(BrainTraceError, match="rank_promotion"):  # control: it is in force
            function(lambda p, h, x: (h + jnp.ones(N), h))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_nothing_is_transferred_behind_the_users_back(made, front_end):
    """With arrays of the user's on the device, no call needs another transfer."""
    learner, first = made[front_end]
    first, xs, ys = jax.tree.map(
        lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, (first, XS, YS)
    )
    at, h, weights = jnp.asarray(XS[0]), jnp.asarray(H), jnp.ones((T, B))
    with jax.transfer_guard("disallow"):
        getattr(learner, "update", learner)(*first, at)
        learner.etrace_grad(*first, xs, ys, loss_fn=loss)
        learner.etrace_grad(*first, xs, ys, loss_fn=loss, window=1, mask=weights)
        learner.etrace_evolve(*first, xs)
        learner.memory_plan(T)
        if first:
            learner.init(first[0], h)
        else:
            learner.reset_state(model=True)
        with pytest.raises(Exception, match="Disallowed"):  # control: it is in force
            jnp.add(at, 1.0)


@pytest.mark.parametrize(
    ("rule", "options"),
    [("d_rtrl", {}), ("rflo", {"random_feedback_key": 0})],
    ids=["given", "drawn"],
)
def test_compiling_transfers_nothing_either(rule, options):
    params, h, x = jax.tree.map(jnp.asarray, ({**PARAMS, "o": np.ones((N, O))}, H, XS[0]))

    def with_readout(params, h, x):
        h, _ = cell(params, h, x)
        return h, h @ params["o"]

    with jax.transfer_guard("disallow"):
        braintrace.compile(with_readout, rule, x, params=params, carry=h, **options)


# Transformations
# ------------------------------------------------------------------------------------------------


def test_learners_under_transformations(made):
    learner, (params, state) = made["function"]
    gradient = lambda p: learner.etrace_grad(p, state, XS, loss_fn=loss)[0]["W"]
    two = {"W": np.stack([PARAMS["W"], 2 * PARAMS["W"]])}
    mapped = jax.vmap(gradient)(two)
    np.testing.assert_allclose(mapped[0], gradient(params), rtol=1e-5)
    many = jax.pmap(gradient)({"W": two["W"][:1]})
    np.testing.assert_allclose(many[0], gradient(params), rtol=1e-5)
    says(lambda: jax.vmap(lambda x: learner.update(params, state, x))(XS[0]), "wrong shape")
    learner, both = made["brainstate"][0], np.stack([XS, XS])
    before = [np.array(s.value) for s in learner.hidden_states.values()]
    for call in (
        lambda: jax.vmap(lambda xs: learner.etrace_grad(xs, loss_fn=loss))(both),
        lambda: jax.jit(learner)(XS[0]),
    ):
        says(call, "inside a transformation of JAX", "brainstate.transform")
    for a, b in zip(before, learner.hidden_states.values(), strict=True):
        np.testing.assert_array_equal(a, b.value)
    learner = made["nnx"][0]
    for call in (
        lambda: jax.vmap(lambda xs: learner.etrace_grad(xs, loss_fn=loss)[0])(both),
        lambda: jax.jit(lambda x: learner(x))(XS[0]),
    ):
        says(call, "no argument of", "nnx.split")
    with contextlib.suppress(UsageError):
        jax.jit(lambda x: learner(x))(XS[0])
    assert learner(XS[0]).shape == (B, N)


def test_a_learner_that_is_not_compiled():
    model = Network()
    brainstate.nn.init_all_states(model, batch_size=B)
    learner = braintrace.D_RTRL(model)
    for call in (
        lambda: learner(XS[0]),
        lambda: learner.etrace_grad(XS, loss_fn=loss),
        lambda: learner.etrace_fit(XS, loss_fn=loss, optimizer=optax.sgd(0.1)),
        lambda: learner.etrace_evolve(XS),
        lambda: learner.reset_state(),
        lambda: learner.memory_plan(T),
        lambda: learner.report,
    ):
        says(call, "D_RTRL is not compiled", "compile_graph(x)")
