"""Networks with sparse weights have the gradients of the masked dense network, and traces of the
stored elements alone.
"""

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import braintrace
from braintrace import checks
from braintrace.checks import Layer, LayeredCell
from zoo._interpret import once

from ._rules import DECAYS, SUM, apart, drawn, norm, same, stepwise, windowed
from ._shapes import sizes_in
from .cells import LEAK, fire, lif_move, read

I, N, O, B, T, EACH = 4, 5, 2, 2, 6, 2
MASK_W, MASK_U = (
    np.random.default_rng(k).random(shape) < 0.6 for k, shape in enumerate([(I, N), (N, N)])
)
TO = np.stack(
    [np.random.default_rng(9 + k).permutation(N)[:EACH] for k in range(N)]
)  # targets of each neuron
INDEX_W, INDEX_U = (np.stack(np.nonzero(m), -1) for m in (MASK_W, MASK_U))
INDEX_F = np.stack([np.repeat(np.arange(N), EACH), TO.reshape(-1)], -1)


def scattered(index, shape):
    """The dense matrix of stored elements."""
    return lambda w: jnp.zeros(shape).at[tuple(index.T)].set(w.reshape(-1) if w.size > 1 else w[0])


def bcoo(index, shape):
    return lambda w: sparse.BCOO((w, jnp.asarray(index)), shape=shape)


def csr(mask):
    pattern = brainevent.CSR.fromdense(jnp.asarray(mask, float))
    return lambda w: brainevent.CSR((w, pattern.indices, pattern.indptr), shape=pattern.shape)


def csc_order(mask):
    columns, rows = np.nonzero(mask.T)
    return np.stack([rows, columns], -1)


def csc(mask):
    pattern = brainevent.CSC.fromdense(jnp.asarray(mask, float))
    return lambda w: pattern.with_data(w)


_PER_PRE = brainevent.FixedNumPerPre(jnp.ones((N, EACH)), jnp.asarray(TO), shape=(N, N))
_PER_POST = brainevent.FixedNumPerPost(jnp.ones((N, EACH)), jnp.asarray(TO), shape=(N, N))
event = brainevent.BinaryArray

#: name -> ((sparse W, dense W, stored), (sparse U, dense U, stored), what stands around the spikes)
FORMATS = {
    "BCOO": (bcoo, bcoo, lambda z: z, INDEX_U, (len(INDEX_U),)),
    "CSR": (None, csr(MASK_U), lambda z: z, INDEX_U, (len(INDEX_U),)),
    "CSR of events": (None, csr(MASK_U), event, INDEX_U, (len(INDEX_U),)),
    "CSC of events": (None, csc(MASK_U), event, csc_order(MASK_U), (len(INDEX_U),)),
    "one weight for all": (None, csr(MASK_U), event, INDEX_U, (1,)),
    "fixed number of targets, as numbers": (
        None,
        _PER_PRE.with_data,
        lambda z: z,
        INDEX_F,
        (N, EACH),
    ),
    "fixed number of sources, as numbers": (
        None,
        _PER_POST.with_data,
        lambda z: z,
        INDEX_F[:, ::-1],
        (N, EACH),
    ),
    "gathered and added up": (None, None, None, INDEX_U, (len(INDEX_U),)),
    "fixed number of targets": (None, _PER_PRE.with_data, event, INDEX_F, (N, EACH)),
    "fixed number of sources": (None, _PER_POST.with_data, event, INDEX_F[:, ::-1], (N, EACH)),
}
FORMATS["BCOO"] = (bcoo(INDEX_W, (I, N)), bcoo(INDEX_U, (N, N)), *FORMATS["BCOO"][2:])


def by_hand(w, x):
    """A sparse product without a library."""
    rows, columns = INDEX_U.T
    return jnp.zeros((*x.shape[:-1], N)).at[..., columns].add(w * x[..., rows])


def cell_of(W, U, around):
    def drive(p, below, own, one):
        into = by_hand(p["U"], own) if U is None else around(own) @ U(p["U"])
        return below @ W(p["W"]) + into + one * p["b"]

    return LayeredCell((Layer(drive, lif_move, fire),), read, LEAK)


def network(name):
    """The network with sparse weights, the same one with masked dense ones, and its data."""
    W, U, around, index, stored = FORMATS[name]
    sparse_cell = cell_of(csr(MASK_W) if W is None else W, U, around)
    dense_cell = cell_of(scattered(INDEX_W, (I, N)), scattered(index, (N, N)), lambda z: z)
    params = {
        "W": drawn(len(INDEX_W)),
        "U": 0.8 * drawn(*stored),
        "b": 0.3 * drawn(N),
        "o": drawn(N, O),
    }
    carry, xs, ys = (
        (0.3 * drawn(B, N), 0.3 * drawn(B, O)),
        1.5 * drawn(T, B, I),
        drawn(T, B, O, seed=1),
    )
    return sparse_cell, dense_cell, jax.tree.map(jnp.asarray, (params, carry, xs, ys))


#: brainevent's own index arithmetic, with 64-bit numbers
pytestmark = pytest.mark.filterwarnings(
    "ignore:scatter inputs have incompatible types:FutureWarning"
)

RULES = {
    "d_rtrl": ({}, checks.layered_oracle, {}),
    "pp_prop": ({"decay_or_rank": DECAYS}, checks.pp_prop_oracle, {"decays": DECAYS}),
    "ottt": ({"leak": LEAK}, checks.ottt_oracle, {"leak": LEAK}),
    "otpe": ({"leak": LEAK}, checks.otpe_oracle, {"leak": LEAK}),
    "ostl_recurrent": ({}, checks.layered_oracle, {"recurrent": True}),
    "eprop": ({"kappa_filter_decay": 0.7}, checks.eprop_oracle, {"kappa": 0.7}),
}
ALL = [("d_rtrl", f) for f in FORMATS] + [("pp_prop", f) for f in FORMATS]
ALL += [
    (rule, f)
    for rule in ("ottt", "otpe", "ostl_recurrent", "eprop")
    for f in ("BCOO", "CSR of events")
]


@pytest.mark.parametrize(("rule", "name"), ALL)
def test_equals_the_oracle_of_the_masked_dense_network(rule, name):
    options, oracle, oracle_options = RULES[rule]
    sparse_cell, dense_cell, given = network(name)
    params, carry, xs, _ = given
    this = braintrace.compile(sparse_cell, rule, xs[0], params=params, carry=carry, **options)

    @once
    def every_way(*given):
        right = oracle(dense_cell, *given, **SUM, **oracle_options)[0]
        return right, windowed(this, given, 1), windowed(this, given, 3), stepwise(this, given)

    right, *found = every_way(*given)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    for got in found:
        same(got, right)
    bptt = checks.bptt_gradient(dense_cell, *given, **SUM)[0]
    assert max(apart(bptt, right).values()) > 1e-3  # control: no window is the whole sequence


def floating_step_by_step(this, given, carry, xs, ys):
    """The sum of the gradients of `update` with respect to the stored elements and the readout."""
    update = jax.jit(this.update)

    def with_floats(floats):
        matrices = {
            k: sparse.BCOO((floats[k], given[k].indices), shape=given[k].shape) for k in "WU"
        }
        return matrices | {"o": floats["o"]}

    def objective(floats, state, x, y):
        state, out = update(with_floats(floats), state, x)
        return jnp.sum(SUM["loss_fn"](out, y)), state

    floats, state = (
        {"W": given["W"].data, "U": given["U"].data, "o": given["o"]},
        this.init(given, carry),
    )
    total = jax.tree.map(jnp.zeros_like, floats)
    for x, y in zip(xs, ys, strict=True):
        found, state = jax.grad(objective, has_aux=True)(floats, state, x, y)
        total = jax.tree.map(jnp.add, total, found)
    return total


def test_the_matrix_may_come_with_the_parameters():
    """Indices among the parameters are no constants: they are read at each call, here after a
    permutation of the neurons.
    """

    def cell(params, h, x):
        h = 0.8 * h + jnp.tanh(x @ params["W"] + h @ params["U"])
        return h, h @ params["o"]

    def dense(params, h, x):
        return cell(params | {k: params[k].todense() for k in "WU"}, h, x)

    params = {
        "W": bcoo(INDEX_W, (I, N))(drawn(len(INDEX_W))),
        "U": bcoo(INDEX_U, (N, N))(drawn(len(INDEX_U))),
    }
    params = jax.tree.map(jnp.asarray, params | {"o": drawn(N, O)})
    carry, xs, ys = jax.tree.map(
        jnp.asarray, (0.3 * drawn(B, N), drawn(T, B, I), drawn(T, B, O, seed=1))
    )
    order = jnp.asarray(np.random.default_rng(0).permutation(N))
    moved = params | {
        "U": sparse.BCOO((params["U"].data, order[params["U"].indices]), shape=(N, N))
    }
    this = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry)
    for given in (params, moved):
        right = braintrace.compile(dense, "d_rtrl", xs[0], params=given, carry=carry)
        wanted = right.etrace_grad(
            given, right.init(given, carry), xs, ys, window=2, return_state=False, **SUM
        )[0]
        got = this.etrace_grad(
            given, this.init(given, carry), xs, ys, window=2, return_state=False, **SUM
        )[0]
        wanted, got = ({k: getattr(v, "data", v) for k, v in r.items()} for r in (wanted, got))
        same(got, wanted)
        same(floating_step_by_step(this, given, carry, xs, ys), wanted)
    before = this.etrace_grad(
        params, this.init(params, carry), xs, ys, window=2, return_state=False, **SUM
    )[0]
    assert (
        max(apart({"U": got["U"]}, {"U": before["U"].data}).values()) > 1e-3
    )  # control: the permutation matters


def test_one_sample_and_weights_on_the_left():
    U, W = csr(MASK_U), csr(MASK_W.T)

    def cell(params, h, x):
        h = 0.8 * h + jnp.tanh(W(params["W"]) @ x + U(params["U"]) @ h)
        return h, h @ params["o"]

    index_wt = np.stack(np.nonzero(MASK_W.T), -1)

    def dense(params, h, x):
        h = 0.8 * h + jnp.tanh(
            scattered(index_wt, (N, I))(params["W"]) @ x
            + scattered(INDEX_U, (N, N))(params["U"]) @ jax.lax.stop_gradient(h)
        )
        return h, h @ params["o"]

    params = jax.tree.map(
        jnp.asarray, {"W": drawn(len(index_wt)), "U": drawn(len(INDEX_U)), "o": drawn(N, O)}
    )
    h, xs, ys = jax.tree.map(jnp.asarray, (0.3 * drawn(N), drawn(T, I), drawn(T, O, seed=1)))
    this = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    options = {"loss_fn": lambda out, y: jnp.sum((out - y) ** 2), "reduction": "sum"}
    right = checks.bptt_gradient(dense, params, h, xs, ys, **options)[0]
    for window in (1, 3):
        got = this.etrace_grad(
            params, this.init(params, h), xs, ys, window=window, return_state=False, **options
        )[0]
        same(got, right)
    assert min(norm(right).values()) > 1e-3  # not dead


def trace_elements(rule, stored, size, make, **options):
    """Elements of the traces of a recurrent weight with `stored` elements among `size` neurons, B
    samples.
    """
    index = np.random.default_rng(0).choice(size * size, stored, replace=False)
    W = make(np.stack(np.divmod(index, size), -1), (size, size))

    def cell(params, h, x):
        h = 0.8 * h + jnp.tanh(x + h @ W(params["U"]))
        return h, h.sum(-1)

    params, h = {"U": jnp.ones(stored)}, jnp.zeros((B, size))
    this = braintrace.compile(cell, rule, h, params=params, carry=h, **options)
    return sum(v.size for v in jax.tree.leaves(this.init(params, h).traces))


def test_the_trace_has_the_size_of_the_stored_elements():
    """Twice the elements, twice the trace; twice the neurons, the same. Control: the masked dense
    network's is N^2.
    """
    assert trace_elements("d_rtrl", 100, 20, bcoo) == B * 100
    assert trace_elements("d_rtrl", 200, 20, bcoo) == B * 200
    assert trace_elements("d_rtrl", 100, 40, bcoo) == B * 100
    assert trace_elements("d_rtrl", 100, 20, scattered) == B * 20 * 20
    for stored in (100, 200):
        assert trace_elements("pp_prop", stored, 20, bcoo, decay_or_rank=DECAYS) == B * 40 + B


def _descend(p, g):
    """A step of a fixed part of the parameter's own size."""
    return p - 0.03 * jnp.linalg.norm(p) * g / (jnp.linalg.norm(g) + 1e-12)


@pytest.mark.parametrize(("rule", "options"), [("d_rtrl", {}), ("pp_prop", {"decay_or_rank": 0.9})])
def test_ten_thousand_neurons_train(rule, options):
    """A spiking network of 10,000 neurons and a million synapses: the loss falls, and nothing of
    10^8 elements is made.
    """
    size, stored, rng = 10_000, 1_000_000, np.random.default_rng(0)
    rows = np.sort(rng.integers(0, size, stored))
    indptr = jnp.asarray(np.searchsorted(rows, np.arange(size + 1)), jnp.int32)
    columns = jnp.asarray(rng.integers(0, size, stored), jnp.int32)

    def cell(params, v, x):
        z = event(fire(v))
        v = 0.9 * v - jax.lax.stop_gradient(z.value) + x @ params["W"]
        v = v + z @ brainevent.CSR((params["U"], columns, indptr), shape=(size, size))
        return v, fire(v) @ params["o"]

    shapes = {"W": ((3, size), 0.3), "U": ((stored,), 0.03), "o": ((size, 1), 1e-3)}
    params = {
        k: jnp.asarray(scale * rng.standard_normal(s), jnp.float32)
        for k, (s, scale) in shapes.items()
    }
    v, xs, ys = (
        jnp.zeros((1, size), jnp.float32),
        jnp.asarray(rng.standard_normal((4, 1, 3)), jnp.float32),
        jnp.ones((4, 1, 1)),
    )
    learner = braintrace.compile(cell, rule, xs[0], params=params, carry=v, **options)
    state = learner.init(params, v)
    biggest = max(leaf.size for leaf in jax.tree.leaves(state.traces))
    assert biggest == (stored if rule == "d_rtrl" else size)
    loss = {"loss_fn": lambda out, y: jnp.mean((out - y.astype(out.dtype)) ** 2)}
    run = jax.jit(lambda params: learner.etrace_grad(params, state, xs, ys, window=1, **loss))
    losses = []
    for _ in range(4):
        gradients, _, info = run(params)
        losses.append(float(info.losses.mean()))
        assert float(jnp.abs(gradients["U"]).max()) > 0
        params = jax.tree.map(_descend, params, gradients)
    assert losses[-1] < losses[0], losses
    assert {
        s for s in sizes_in(jax.make_jaxpr(run)(params).jaxpr) if np.prod(s) >= size**2
    } == set()
