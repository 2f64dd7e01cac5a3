"""Learners by names and options that users of the PyPI package braintrace know."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace

from .leaky import IN, Leaky, N, T, gradient, sequences
from .models import assert_close


def test_vmap_gives_a_learner_of_the_batch():
    model, xs = Leaky(), brainstate.random.randn(T, 5, IN)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=5, vmap=True)
    assert isinstance(learner, braintrace.ETraceVmap) and isinstance(learner, nn.Vmap)
    assert isinstance(learner, braintrace.SequenceDriverMixin)
    assert (
        isinstance(learner.module, braintrace.D_RTRL)
        and learner.module.report.counts == learner.report.counts
    )
    step_fn = lambda x: jnp.sum(learner(x) ** 2)
    whole = learner.etrace_grad(xs, step_fn=step_fn, reduction="sum", window=3)
    learner.reset_state(model=True)
    steps = [brainstate.transform.grad(step_fn, model.states(brainstate.ParamState))(x) for x in xs]
    assert_close(whole, jax.tree.map(lambda *v: sum(v), *steps))
    assert learner.module.running_index.value == T
    with pytest.raises(braintrace.UsageError, match="Another batch size"):
        learner.reset_state(batch_size=4)


def test_evolving_moves_the_traces_on():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    whole = gradient(learner, xs, ys, mask=jnp.arange(T) >= 3)

    def warmed_up(**options):
        learner.reset_state(model=True)
        learner.etrace_evolve(xs[:3], **options)
        step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
        return learner.etrace_grad(xs[3:], ys[3:], step_fn=step_fn, reduction="sum")

    for options in ({}, {"chunk_size": 2}, {"step_fn": lambda x: learner(x)}):
        assert_close(warmed_up(**options), whole)
    assert not np.allclose(
        warmed_up(traces=False)["w",], whole["w",], rtol=1e-3
    )  # control: without the warm-up's traces


def test_loss_output_by_either_name():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    step, total = (
        gradient(learner, xs, ys, return_value=True, loss_output=n)[1]
        for n in ("per_step", "scalar")
    )
    assert step.shape == (T,)
    np.testing.assert_allclose(step.sum(), total)


def test_verbose_prints_the_report(capsys):
    braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=2)
    assert "relation_partial_path" in capsys.readouterr().out
    with pytest.raises(braintrace.UsageError, match="verbose"):
        braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=3)


def test_options_of_the_peer_that_change_no_value():
    model, (xs, ys) = Leaky(), sequences()
    plain = gradient(braintrace.compile(model, "d_rtrl", xs[0]), xs, ys)
    assert_close(
        gradient(
            braintrace.compile(model, "d_rtrl", xs[0], fast_solve=False, chunked_trace=False),
            xs,
            ys,
        ),
        plain,
    )
    with pytest.raises(braintrace.UsageError, match="no multi-step form"):
        braintrace.OTTT(model, leak=0.5, vjp_method="multi-step")


def test_init_etrace_state_clears_the_traces():
    learner = braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN))
    learner(jnp.ones(IN))
    assert any(jnp.any(v != 0) for v in jax.tree.leaves(learner.get_etrace_of(("w",))))
    learner.init_etrace_state()
    assert all(jnp.all(v == 0) for v in jax.tree.leaves(learner.etrace.value))
    assert set(learner.path_to_states) == {("h",), ("w",), ("r",), ("o",)}


def test_gradients_summed_with_a_leak():
    with brainstate.environ.context(dt=1.0 * u.ms):
        summed = braintrace.GradExpon({"w": jnp.zeros(3)}, 10.0 * u.ms)
    assert summed.decay == pytest.approx(np.exp(-0.1))
    summed.update({"w": jnp.ones(3)})
    np.testing.assert_allclose(summed.update({"w": jnp.ones(3)})["w"], 1 + np.exp(-0.1))
    summed.reset_state()
    assert jnp.all(summed.gradients.value["w"] == 0)
    for wrong in (1.0, 0, -2.0 * u.ms, 3.0 * u.mV, "fast"):
        with (
            brainstate.environ.context(dt=1.0 * u.ms),
            pytest.raises(braintrace.UsageError, match="tau_or_decay"),
        ):
            braintrace.GradExpon(jnp.zeros(3), wrong)
    with pytest.raises(braintrace.UsageError, match="another structure"):
        summed.update(jnp.ones(3))


def compiled(algorithm="d_rtrl", **options):
    return braintrace.compile(Leaky(), algorithm, jnp.zeros(IN), **options)


def test_the_graph_is_printed_and_returned(capsys):
    learner = compiled()
    assert learner.show_graph() is None
    printed = capsys.readouterr().out
    assert printed.strip() == str(learner.report).strip()
    assert learner.show_graph(verbose=False, return_msg=True) == str(learner.report)
    assert not capsys.readouterr().out
    assert learner.show_graph(True, True) and capsys.readouterr().out == printed
    with pytest.raises(braintrace.UsageError, match="return_msg"):
        learner.show_graph(return_msg="yes")
    assert learner.executor is learner.graph_executor is learner


@pytest.mark.parametrize(
    ("algorithm", "options", "attributes"),
    [
        ("pp_prop", {"decay_or_rank": 19}, {"decay": 0.9, "decay_x": 0.9, "decay_f": 0.9}),
        ("pp_prop", {"decay_or_rank": (0.9, 0.8)}, {"decay": (0.9, 0.8), "decay_f": 0.8}),
        ("d_rtrl", {"trace_dtype": jnp.float32}, {"trace_dtype": jnp.float32}),
        ("eprop", {"kappa_filter_decay": 0.5}, {"kappa_filter_decay": 0.5, "feedback": None}),
        ("ottt", {"leak": 0.5}, {"leak": (0.5,), "mode": "A"}),
        ("ostl_recurrent", {}, {"regime": "with-H", "trace_dtype": None}),
        ("ostl_feedforward", {}, {"regime": "without-H"}),
    ],
)
def test_options_are_attributes(algorithm, options, attributes):
    learner = compiled(algorithm, **options)
    for name, value in attributes.items():
        assert getattr(learner, name) == (value if name != "feedback" else "symmetric")


def test_paths_of_states():
    learner = compiled()
    assert learner.state_id_to_path == {id(s): p for p, s in learner.path_to_states.items()}
    assert learner.state_id_to_path[id(learner.model.h)] == ("h",)
    info = braintrace.extract_module_info(learner.model, jnp.zeros(IN))
    assert info.state_id_to_path == learner.graph.module_info.state_id_to_path


class Membrane(Leaky):
    """Two states that feed each other neuron by neuron."""

    def init_state(self, batch_size=None):
        super().init_state(batch_size)
        self.a = brainstate.HiddenState(jnp.zeros(N))

    def update(self, x):
        self.a.value = 0.9 * self.a.value + self.h.value
        self.h.value = self.step(self.h.value, x @ self.w.value - 0.1 * self.a.value)
        return self.h.value @ self.o.value


def test_what_a_group_and_a_relation_hold():
    graph = braintrace.compile(Membrane(), "d_rtrl", jnp.zeros(IN)).graph
    [group] = graph.hidden_groups
    assert [v.shape for v in (*group.hidden_invars, *group.hidden_outvars)] == [(N,)] * 4
    values = [jnp.arange(N), 10.0 * jnp.arange(N)]
    together = group.concat_hidden(values)
    assert together.shape == (N, 2) and together[3].tolist() == [3, 30]
    for found, value in zip(group.split_hidden(together), values, strict=True):
        np.testing.assert_array_equal(found, value)
    with pytest.raises(braintrace.UsageError, match="one value each"):
        group.concat_hidden(values[:1])
    with pytest.raises(braintrace.UsageError, match="2 on the last axis"):
        group.split_hidden(together[:, :1])
    [relation] = graph.hidden_param_op_relations
    assert (relation.x_var.shape, relation.y_var.shape) == ((IN,), (N,))
    assert relation.eqn_params["dimension_numbers"] == (((0,), (0,)), ((), ()))


def test_operators_by_their_documented_form():
    """The rules are of no effect: one that is wrong changes nothing."""
    operator = braintrace.register_primitive("affine", lambda x, w, b: x @ w + b, batched=True)
    operator.register_etp_rules(dt_to_t=lambda f, trace, **params: trace)
    for register in (
        operator.register_xy_to_dw,
        operator.register_init_drtrl,
        operator.register_init_pp,
    ):
        register(lambda *given, **params: 0.0)
    assert set(operator.rules) == {"dt_to_t", "xy_to_dw", "init_drtrl", "init_pp"}

    class Own(Leaky):
        def update(self, x):
            drive = operator.bind(x, self.w.value, 0.1)
            self.h.value = self.step(self.h.value, drive)
            return self.h.value @ self.o.value

    xs, ys = sequences()
    learner = braintrace.compile(Own(), "d_rtrl", xs[0])
    params = {path: s.value for path, s in learner.param_states.items()}

    def bptt(params):
        h, total = jnp.zeros(N), 0.0
        for x, y in zip(xs, ys, strict=True):
            h = learner.model.step(h, x @ params["w",] + 0.1)
            total += jnp.sum((h @ params["o",] - y) ** 2)
        return total

    expected = jax.grad(bptt)(params)
    for window in (1, 3, None):
        assert_close(gradient(learner, xs, ys, window=window), expected)
    other = jax.grad(lambda p: bptt({**p, ("w",): 1.1 * p["w",]}))(params)
    assert not np.allclose(other["w",], expected["w",], rtol=1e-3)  # control
    assert [r.path for r in learner.graph.hidden_param_op_relations] == [("w",)]
    for bad in (
        lambda: braintrace.register_primitive("a", "x @ w"),
        lambda: braintrace.register_primitive(3, jnp.dot),
        lambda: operator.register_dt_to_t("rule"),
        lambda: operator.register_etp_rules(dt=jnp.dot),
    ):
        with pytest.raises(braintrace.UsageError):
            bad()


def test_the_version_as_numbers():
    assert ".".join(map(str, braintrace.__version_info__)) == braintrace.__version__


@jax.custom_jvp
def hidden_product(x, w):
    """A product whose derivative is of its own."""
    return x @ w


hidden_product.defjvp(lambda at, along: (at[0] @ at[1], along[0] @ at[1] + at[0] @ along[1]))


class ProductRule(braintrace.SiteRule):
    def contraction(self):
        return self.equation.inputs[1].shape[:1]

    def spread(self, f, data):
        return f[..., None] * data[0]

    def collect(self, entries):
        return entries.T

    def lane_axis(self, axis):
        return None


def test_an_operator_that_hides_its_weight_takes_a_site_rule():
    operator = braintrace.register_primitive("hidden", hidden_product)
    operator.register_etp_rules(dt_to_t=lambda f, trace: trace)

    class Own(Leaky):
        def update(self, x):
            self.h.value = self.step(self.h.value, operator.bind(x, self.w.value))
            return self.h.value @ self.o.value

    xs, ys = sequences()
    model = Own()
    assert braintrace.compile(model, "d_rtrl", xs[0]).graph.exactness("w") == "instantaneous"
    make = lambda equation, operand: ProductRule(equation, operand) if operand == 1 else None
    braintrace.register_site_rule(operator, make)
    x, w = xs[0], model.w.value
    braintrace.checks.check_site_rule(operator.bind, x, w, weight=1)
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    assert learner.graph.exactness("w") == "exact"
    [relation] = learner.graph.hidden_param_op_relations
    assert relation.primitive is operator

    def bptt(w):
        h, total = jnp.zeros(N), 0.0
        for x, y in zip(xs, ys, strict=True):
            h = model.step(h, x @ w)
            total += jnp.sum((h @ model.o.value - y) ** 2)
        return total

    for window in (1, 3):
        found = gradient(learner, xs, ys, window=window)
        np.testing.assert_allclose(found["w",], jax.grad(bptt)(w), rtol=1e-10)
    mapped = jax.jit(jax.vmap(operator.bind, (0, None)))
    np.testing.assert_allclose(mapped(xs, w), xs @ w)
