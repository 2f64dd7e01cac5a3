"""A learner of one sample under the user's `vmap`: against a loop over the samples, which knows no
map, and against the learner of the whole batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.core.engine import _link
from braintrace.core.traces import FactorCarrier

I, N, B, T = 3, 4, 5, 3
ROWS = 6  # of the table
TABLE, KERNEL = (ROWS, N), (N, 3)  # no two sizes of weights and samples are the same


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))


PARAMS = {
    "w": 0.6 * draw(1, I, N),
    "u": 0.5 * draw(2, N, N),
    "b": 0.3 * draw(3, N),
    "table": draw(4, *TABLE),
    "kernel": draw(5, 3, 1, 1),
    "decay": draw(6, N),
    "out": draw(7, N, 2),
}
XS = draw(8, T, B, I), jnp.asarray(np.random.default_rng(9).integers(0, ROWS, (T, B)))
ONE = jnp.zeros(N), jnp.zeros(N)


def cell(p, carry, x):
    """Of one sample, or of a batch: two states, every kind of site."""
    (v, a), (x, word) = carry, x
    z = jnp.tanh(v - 0.5 * a)
    signal = jax.lax.conv_general_dilated(
        z.reshape(-1, N, 1), p["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    drive = x @ p["w"] + z @ p["u"] + p["table"][word] + p["b"] + signal.reshape(z.shape)
    new = jax.nn.sigmoid(p["decay"]) * v + drive, 0.9 * a + 0.2 * z
    return new, jnp.tanh(new[0]) @ p["out"]


def loss(out):
    return jnp.sum(jnp.sin(out) ** 2)


ALGORITHMS = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": 0.8},
    "eprop": {},
    "ostl_recurrent": {},
    "ottt": {"leak": 0.7},
    "otpe": {"leak": 0.7},
}


def learner_of(algorithm, samples=None):
    lead = () if samples is None else (samples,)
    carry = tuple(jnp.zeros((*lead, N)) for _ in ONE)
    x = jnp.zeros((*lead, I)), jnp.zeros(lead, int)
    given = {"params": PARAMS, "carry": carry, "batch_size": samples}
    return braintrace.compile(cell, algorithm, x, **given, **ALGORITHMS[algorithm]), carry


def steps(update, xs, state):
    """The gradient of every step, by `update(state, x) -> (gradient, state)`."""
    found = []
    for t in range(T):
        gradient, state = update(state, pick(xs, t))
        found.append(gradient)
    return jax.tree.map(lambda *v: jnp.stack(v), *found)


def gradient_of(update):
    """Of the summed loss of `update(params, state, x) -> (state, out)`."""

    def objective(params, state, x):
        state, out = update(params, state, x)
        return loss(out), state

    return jax.grad(objective, has_aux=True)


def by_loop(learner, carry=ONE, params=None):
    """Gradients of each sample and step, (B, T, ...)."""
    gradient = jax.jit(gradient_of(learner.update))
    own = lambda b: jax.tree.map(lambda v: v[:, b], XS)
    params = [PARAMS] * B if params is None else params
    found = [
        steps(lambda s, x, p=p: gradient(p, s, x), own(b), learner.init(p, carry))
        for b, p in enumerate(params)
    ]
    return jax.tree.map(lambda *v: jnp.stack(v), *found)


def states(learner):
    """Of every sample, one after another in front."""
    return jax.vmap(lambda _: learner.init(PARAMS, ONE))(jnp.arange(B))


def same(got, wanted):
    for name, value in wanted.items():
        scale = np.abs(value).max() + 1e-30
        np.testing.assert_allclose(got[name] / scale, value / scale, atol=1e-12, err_msg=name)


def differs(got, wanted):
    return max(float(jnp.abs(got[k] - wanted[k]).max()) for k in wanted) > 1e-3


def summed(each):
    return jax.tree.map(lambda v: v.sum(0), each)


def pick(tree, k):
    return jax.tree.map(lambda v: v[k], tree)


def samples_first(tree):
    """From (T, B, ...), and back."""
    return jax.tree.map(lambda v: jnp.moveaxis(v, 1, 0), tree)


mapped_update = lambda learner: jax.vmap(learner.update, in_axes=(None, 0, 0))


@pytest.fixture(scope="module", params=[*ALGORITHMS])
def problem(request):
    learner, _ = learner_of(request.param)
    return request.param, learner, by_loop(learner)


def test_a_gradient_of_a_map_is_the_sum(problem):
    algorithm, learner, each = problem
    compiled = jax.jit(gradient_of(mapped_update(learner)))
    found = steps(lambda s, x: compiled(PARAMS, s, x), XS, states(learner))
    same(found, summed(each))
    assert differs(found, jax.tree.map(lambda v: v.mean(0), each))
    batched, carry = learner_of(algorithm, B)
    compiled = jax.jit(gradient_of(batched.update))
    same(found, steps(lambda s, x: compiled(PARAMS, s, x), XS, batched.init(PARAMS, carry)))


def test_a_map_of_gradients_is_each_of_them(problem):
    _, learner, each = problem
    compiled = jax.jit(jax.vmap(gradient_of(learner.update), in_axes=(None, 0, 0)))
    found = steps(lambda s, x: compiled(PARAMS, s, x), XS, states(learner))
    same(samples_first(found), each)
    assert differs(jax.tree.map(lambda v: v[:, 0], found), summed(each))


def test_eager_scan_and_checkpoint():
    learner, _ = learner_of("d_rtrl")
    wanted = summed(summed(samples_first(by_loop(learner))))
    eager = gradient_of(mapped_update(learner))
    same(summed(steps(lambda s, x: eager(PARAMS, s, x), XS, states(learner))), wanted)

    def of_scan(params, wrap):
        return jax.lax.scan(
            lambda s, x: wrap(mapped_update(learner))(params, s, x), states(learner), XS
        )[1]

    # one derivative of the whole scan: that of a step's loss does not reach back beyond the traces
    for wrap in (lambda f: f, jax.checkpoint, jax.jit):
        found = jax.grad(lambda p, wrap=wrap: jnp.sum(jnp.sin(of_scan(p, wrap)) ** 2))(PARAMS)
        same(found, wanted)


def test_a_map_of_maps():
    learner, _ = learner_of("d_rtrl")
    wanted = summed(by_loop(learner))
    two = lambda tree, axis: jax.tree.map(
        lambda v: jnp.stack([v, v[:, ::-1] if axis else v[::-1]], axis), tree
    )
    update = jax.vmap(mapped_update(learner), in_axes=(None, 0, 0))
    compiled = jax.jit(gradient_of(update))
    found = steps(lambda s, x: compiled(PARAMS, s, x), two(XS, 1), two(states(learner), 0))
    same(found, jax.tree.map(lambda v: 2 * v, wanted))
    # the outer map around the gradient, the inner one inside
    compiled = jax.jit(jax.vmap(gradient_of(mapped_update(learner)), in_axes=(None, 0, 0)))
    found = steps(lambda s, x: compiled(PARAMS, s, x), two(XS, 1), two(states(learner), 0))
    for k in range(2):
        same(jax.tree.map(lambda v, k=k: v[:, k], found), wanted)


def test_the_map_may_lie_along_any_axis():
    learner, _ = learner_of("d_rtrl")
    wanted = summed(by_loop(learner))
    last = lambda tree: jax.tree.map(lambda v: jnp.moveaxis(v, 0, -1), tree)
    update = jax.vmap(learner.update, in_axes=(None, -1, -1), out_axes=-1)
    compiled = jax.jit(gradient_of(update))
    xs = jax.tree.map(lambda v: jnp.moveaxis(v, 1, -1), XS)
    same(steps(lambda s, x: compiled(PARAMS, s, x), xs, last(states(learner))), wanted)


SEVERAL = jax.tree.map(lambda v: jnp.stack([v * (0.6 + 0.2 * k) for k in range(B)]), PARAMS)
MEMBERS = [pick(SEVERAL, k) for k in range(B)]


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_an_ensemble_has_a_gradient_for_each_member(algorithm):
    learner, _ = learner_of(algorithm)
    wanted = by_loop(learner, params=MEMBERS)
    compiled = jax.jit(gradient_of(jax.vmap(learner.update)))
    found = steps(lambda s, x: compiled(SEVERAL, s, x), XS, states(learner))
    same(samples_first(found), wanted)
    # some parameters are the members' own, others are shared: one before and one after a trace
    shared = ("w", "b", "out")
    axes = {k: None if k in shared else 0 for k in PARAMS}
    mixed = {k: PARAMS[k] if k in shared else SEVERAL[k] for k in PARAMS}
    own = [{k: PARAMS[k] if k in shared else v for k, v in m.items()} for m in MEMBERS]
    wanted = by_loop(learner, params=own)
    compiled = jax.jit(gradient_of(jax.vmap(learner.update, in_axes=(axes, 0, 0))))
    found = steps(lambda s, x: compiled(mixed, s, x), XS, states(learner))
    of_members = {k: jnp.moveaxis(v, 0, 1) for k, v in found.items() if k not in shared}
    same(of_members, {k: wanted[k] for k in of_members})
    same({k: found[k] for k in shared}, summed({k: wanted[k] for k in shared}))


@pytest.mark.parametrize("members_outside", [True, False])
def test_an_ensemble_of_batches(members_outside):
    learner, _ = learner_of("d_rtrl")
    wanted = [summed(by_loop(learner, params=[p] * B)) for p in MEMBERS[:2]]
    several = jax.tree.map(lambda v: v[:2], SEVERAL)
    if members_outside:
        update = jax.vmap(mapped_update(learner), in_axes=(0, 0, None))
        start = jax.tree.map(lambda v: jnp.stack([v, v]), states(learner))
    else:
        members = jax.vmap(learner.update, in_axes=(0, 0, None))
        update = jax.vmap(members, in_axes=(None, 0, 0))
        start = jax.tree.map(lambda v: jnp.stack([v, v], 1), states(learner))
    compiled = jax.jit(gradient_of(update))
    found = steps(lambda s, x: compiled(several, s, x), XS, start)
    for k, of_member in enumerate(wanted):
        same(jax.tree.map(lambda v, k=k: v[:, k], found), of_member)


def test_alternatives_from_one_state():
    """Inputs alone are mapped: the traces before the step are shared."""
    learner, _ = learner_of("d_rtrl")
    first = pick(pick(XS, 0), 0)
    state, _ = learner.update(PARAMS, learner.init(PARAMS, ONE), first)
    xs = pick(XS, 1)
    found = gradient_of(jax.vmap(learner.update, in_axes=(None, None, 0)))(PARAMS, state, xs)[0]
    alone = gradient_of(learner.update)
    each = [alone(PARAMS, state, pick(xs, b))[0] for b in range(B)]
    same(found, jax.tree.map(lambda *v: sum(v), *each))


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
@pytest.mark.parametrize("full", [False, True])
def test_windows(algorithm, full):
    learner, _ = learner_of(algorithm)
    update = lambda p, s, x: learner.update_window(p, s, x, full=full)
    advanced = jax.jit(mapped_update(learner))(PARAMS, states(learner), pick(XS, 0))[0]
    xs = samples_first(XS)
    found = jax.jit(gradient_of(jax.vmap(update, in_axes=(None, 0, 0))))(PARAMS, advanced, xs)[0]
    alone = jax.jit(gradient_of(update))
    each = [alone(PARAMS, pick(advanced, b), pick(xs, b))[0] for b in range(B)]
    same(found, jax.tree.map(lambda *v: sum(v), *each))


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop", "ostl_recurrent"])
def test_sequences_with_masks(algorithm):
    """The drivers give each sample's own gradient."""
    learner, _ = learner_of(algorithm)
    mask = jnp.ones((B, T)).at[1, 2].set(0)

    def gradient(state, xs, mask):
        options = {"loss_fn": loss, "mask": mask, "reduction": "sum", "window": 2}
        return learner.etrace_grad(PARAMS, state, xs, **options)[0]

    given = states(learner), samples_first(XS), mask
    mapped = jax.jit(jax.vmap(gradient))
    found = mapped(*given)
    for b in range(B):
        same(pick(found, b), gradient(*pick(given, b)))
    assert differs(mapped(*given[:2], jnp.ones((B, T))), found)


def largest(program):
    """Elements of the largest array of a program."""
    sizes = [0]

    def look(jaxpr):
        for equation in jaxpr.eqns:
            sizes.extend(math.prod(v.aval.shape) for v in equation.outvars)
            for inner in jax.tree.leaves(
                equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
            ):
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    look(getattr(inner, "jaxpr", inner))

    look(program.jaxpr)
    return max(sizes)


def without_the_rule(monkeypatch, run):
    """What `run` gives without the rule of `link`; None where JAX refuses it, as later versions
    do.
    """
    monkeypatch.setattr(_link, "with_batch_rule", lambda function, rule: function)
    try:
        return run()
    except ValueError as error:
        assert "bwd rule produced a batched left cotangent" in str(error)
        return None


@pytest.mark.parametrize("algorithm", ["pp_prop", "ottt"])
def test_no_gradient_of_each_sample_is_formed(algorithm, monkeypatch):
    """Of factorised rules nothing is then as large as the samples' weights."""
    weights = {k: v for k, v in PARAMS.items() if k in ("w", "u", "b", "out", "decay")}

    def plain(p, carry, x):
        (v, a), (x, _) = carry, x
        v = 0.9 * v + jnp.tanh(x @ p["w"] + v @ p["u"] + p["b"])
        return (v, a), v @ p["out"]

    x = jnp.zeros(I), jnp.zeros((), int)
    options = ALGORITHMS[algorithm]
    of = {"params": weights, "carry": ONE, "batch_size": None}

    def program():
        learner = braintrace.compile(plain, algorithm, x, **of, **options)
        state = jax.vmap(lambda _: learner.init(weights, ONE))(jnp.arange(B))
        first = pick(XS, 0)
        return jax.make_jaxpr(gradient_of(mapped_update(learner)))(weights, state, first)

    assert largest(program()) < B * N * I
    found = without_the_rule(monkeypatch, program)
    assert found is None or largest(found) >= B * N * I  # control


def test_without_its_rule_a_map_sums_what_it_should_not(monkeypatch):
    """Control: the rule of `link` is what keeps the cotangents of the samples apart."""
    learner, _ = learner_of("d_rtrl")
    wanted = summed(by_loop(learner))

    def run():
        learner, _ = learner_of("d_rtrl")
        compiled = jax.jit(gradient_of(mapped_update(learner)))
        return steps(lambda s, x: compiled(PARAMS, s, x), XS, states(learner))

    found = without_the_rule(monkeypatch, run)
    assert found is None or differs(found, wanted)


def test_a_sum_of_gradients_is_no_mean(monkeypatch):
    """Control: a weight product that divides by the samples is found."""
    whole = FactorCarrier.gradients
    halved = lambda *given: [g / 2 for g in whole(*given)]
    learner, _ = learner_of("pp_prop")
    wanted = summed(by_loop(learner))
    monkeypatch.setattr(FactorCarrier, "gradients", halved)
    learner, _ = learner_of("pp_prop")
    compiled = jax.jit(gradient_of(mapped_update(learner)))
    assert differs(steps(lambda s, x: compiled(PARAMS, s, x), XS, states(learner)), wanted)
