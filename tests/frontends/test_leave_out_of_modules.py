"""What is left out on purpose, of modules of brainstate, NNX and Equinox."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import UsageError

from ._leaving_out import ZERO
from .cells import IN, OUT, B, N, assert_close, data, sample_loss


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = brainstate.nn.GRUCell(IN, N)
        self.out = brainstate.nn.Linear(N, OUT)

    def update(self, x):
        return self.out(self.rnn(x))


def test_brainstate():
    xs, ys = data()
    brainstate.random.seed(0)
    model = Network()
    learners = [
        braintrace.compile(model, "d_rtrl", xs[0], batch_size=B, **options)
        for options in ({}, {"trainable": ["rnn.Wh", "out.weight.bias"]}, {"exclude": "rnn.Wrz"})
    ]
    found = []
    for learner in learners:
        braintrace_step = lambda x, y, learner=learner: sample_loss(learner(x), y)
        brainstate.nn.init_all_states(model, batch_size=B)
        learner.compile_graph(
            xs[0],
            **({}, {"trainable": ["rnn.Wh", "out.weight.bias"]}, {"exclude": "rnn.Wrz"})[
                len(found)
            ],
        )
        assert learner.check_gradients(xs, ys, step_fn=braintrace_step).ok
        found.append(learner.etrace_grad(xs, ys, step_fn=braintrace_step, return_state=False))
    plain, frozen, excluded = found
    keys = {name: next(k for k in plain if name in k) for name in ("Wh", "Wrz", "out")}
    assert set(frozen) == {keys["Wh"], keys["out"]}
    assert_close(frozen[keys["Wh"]], plain[keys["Wh"]])
    np.testing.assert_array_equal(frozen[keys["out"]]["weight"], 0)
    assert_close(frozen[keys["out"]]["bias"], plain[keys["out"]]["bias"])
    rows = {row.path: str(row.exactness) for row in learners[1].graph.parameters}
    assert [rows[f"rnn.Wrz.weight.{k}"] for k in ("weight", "bias")] == ["frozen", "frozen"]
    assert rows["out.weight.weight"] == "frozen" and rows["out.weight.bias"] == "exact"
    assert_close(excluded[keys["Wh"]], plain[keys["Wh"]])
    assert jnp.abs(excluded[keys["Wrz"]]["weight"] - plain[keys["Wrz"]]["weight"]).max() > 1e-4
    assert {
        str(learners[2].graph.exactness(f"rnn.Wrz.weight.{k}")) for k in ("weight", "bias")
    } == {"instantaneous"}
    with pytest.raises(UsageError, match="exclude matches no parameter"):
        braintrace.compile(Network(), "d_rtrl", xs[0], batch_size=B, exclude="rnn.kernel")


def test_nnx():
    nnx = pytest.importorskip("flax.nnx")
    optax = pytest.importorskip("optax")
    from .test_nnx_models import Cell

    xs, ys = data()
    model = Cell(nnx.Rngs(0))
    plain, frozen, excluded = (
        braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, **options)
        for options in ({}, {"trainable": ["w", "out.kernel"]}, {"exclude": "u.kernel"})
    )
    all_of, some, out_of = (
        f.etrace_grad(xs, ys, loss_fn=sample_loss)[0] for f in (plain, frozen, excluded)
    )
    expected = nnx.to_pure_dict(all_of)
    assert_close(
        nnx.to_pure_dict(some), {"w": expected["w"], "out": {"kernel": expected["out"]["kernel"]}}
    )
    assert str(frozen.graph.exactness("u.kernel")) == "frozen"
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2, weight_decay=0.1), wrt=frozen.wrt)
    before = model.u.kernel[...], model.w.kernel[...]
    optimizer.update(model, some)
    assert (model.u.kernel[...] == before[0]).all() and (model.w.kernel[...] != before[1]).all()
    found = nnx.to_pure_dict(out_of)
    assert_close(found["w"], expected["w"])
    assert jnp.abs(found["u"]["kernel"] - expected["u"]["kernel"]).max() > 1e-4
    assert plain.wrt is nnx.Param


def test_equinox():
    eqx = pytest.importorskip("equinox")
    xs, ys = data()
    model = eqx.nn.GRUCell(IN, N, key=jax.random.key(0))
    loss = lambda out, y: sample_loss(out[..., :OUT], y)
    plain, frozen, excluded = (
        braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, vmap=True, **options)
        for options in ({}, {"trainable": "weight_*"}, {"exclude": "weight_hh"})
    )
    all_of, some, out_of = (
        f.etrace_grad(model, f.init(model, ZERO), xs, ys, loss_fn=loss)[0]
        for f in (plain, frozen, excluded)
    )
    assert some.bias is None and some.bias_n is None and frozen.trained(model).bias is None
    assert_close((some.weight_ih, some.weight_hh), (all_of.weight_ih, all_of.weight_hh))
    assert_close(out_of.weight_ih, all_of.weight_ih)
    assert jnp.abs(out_of.weight_hh - all_of.weight_hh).max() > 1e-4
    updated = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, some))
    assert (updated.bias == model.bias).all() and (updated.weight_hh != model.weight_hh).any()
