"""Weights that the PyPI package braintrace saved, in our layers: what it computed with them comes
out, and weights of another structure are refused.
"""

import pickle

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import nn

from .package_layers import INITIAL, LAYERS, NETWORK, RECORDED, B, Network, made, outputs, spread

RECORD = dict(np.load(RECORDED))


def saved(name):
    """The layer's weights as a dict of strings: 'Wz.weight' -> {'weight', 'bias'}."""
    found = {}
    for key, value in RECORD.items():
        layer, kind, *rest = key.split("/")
        if layer == name and kind not in ("xs", "out", "initial"):
            found.setdefault(kind, {})[rest[0]] = value
    return {path: value.get("", value) for path, value in found.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_what_the_package_computed(name):
    layer = made(LAYERS[name][0])
    xs, right = RECORD[f"{name}/xs"], RECORD[f"{name}/out"]
    before = outputs(layer, xs)
    nn.load_weights(layer, saved(name))
    brainstate.nn.reset_all_states(layer, batch_size=B)
    found = outputs(layer, xs)
    np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
    assert np.abs(before - right).max() > 1e-2  # control: the weights matter


@pytest.fixture(scope="module")
def file():
    braintools = pytest.importorskip("braintools")
    return braintools.file.msgpack_load(str(NETWORK))


def check_network(model):
    brainstate.nn.reset_all_states(model, batch_size=B)
    found = outputs(model, RECORD["Network/xs"])
    np.testing.assert_allclose(found, RECORD["Network/out"], rtol=1e-12, atol=1e-12)


def test_a_file_of_braintools(file):
    model = made(Network)
    nn.load_weights(model, file)
    check_network(model)


@pytest.mark.parametrize("form", ["states", "values", "nested", "strings", "pickled", "msgpack"])
def test_every_form_of_saved_states(file, form):
    trained, model = made(Network), made(Network)
    nn.load_weights(trained, file)
    states = trained.states()  # hidden states among them
    by_path = states.to_dict_values()
    forms = {
        "states": lambda: states,
        "values": lambda: by_path,
        "nested": states.to_nest,
        "strings": lambda: {".".join(map(str, path)): v for path, v in by_path.items()},
        "pickled": lambda: pickle.loads(pickle.dumps(by_path)),
        "msgpack": lambda: {str(path): v for path, v in by_path.items()},
    }
    nn.load_weights(model, forms[form]())
    check_network(model)


def test_attributes_of_a_users_program():
    model = made(Network)
    assert model.layers[0].Wz.weight.value["weight"].shape == (5, 3)
    assert model.layers[1].Wf.weight.value["bias"].shape == (3,)
    assert model.readout.W.value.shape == (3, 2)
    assert nn.MinimalRNNCell(2, 3).phi.weight.value["weight"].shape == (2, 3)
    lru = made(LAYERS["LRUCell"][0])
    assert lru.B_re.weight.value["weight"].shape == (2, 3) and lru.h_re.value.shape == (2, 3)


def changed(file, change):
    given = jax.tree.map(lambda v: v, file)
    change(given)
    return given


LSTM_IN_PLACE_OF_GRU = {"0": {k: {"weight": 1.0} for k in ("Wi", "Wg", "Wf", "Wo")}}
FUSED = {"weight": np.ones((5, 6)), "bias": np.ones(6)}
REFUSED = {
    "missing": (lambda f: f["layers"]["0"].pop("Wr"), "no value for layers.0.Wr.weight.bias"),
    "unknown": (
        lambda f: f["layers"]["0"].update(Wrz={"weight": FUSED}),
        "values for layers.0.Wrz.weight",
    ),
    "another layer": (
        lambda f: f["layers"].update(LSTM_IN_PLACE_OF_GRU),
        "no value for layers.0.Wh.*values for layers.0.Wi",
    ),
    "shape": (
        lambda f: f["layers"]["1"]["Wf"]["weight"].update(weight=np.ones((3, 6))),
        r"shape of layers.1.Wf.weight.weight.\n.*\(3, 6\)\n.*\(6, 3\)",
    ),
    "no bias": (
        lambda f: f["layers"]["1"]["Wf"]["weight"].pop("bias"),
        "no value for layers.1.Wf.weight.bias",
    ),
    "dtype": (lambda f: f["readout"].update(W=np.ones((3, 2), complex)), "dtype of readout.W"),
    "no unit": (lambda f: f.update(scale=np.ones(3)), "unit of scale"),
    "another unit": (lambda f: f.update(scale=np.ones(3) * u.ms), "unit of scale"),
    "no array": (lambda f: f["readout"].update(W="weights"), "readout.W is not an array"),
    "empty": (lambda f: f.clear(), "no value for"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_weights_are_refused_and_change_nothing(file, case):
    change, message = REFUSED[case]
    model = made(Network)
    before = jax.tree.leaves(model.states().to_dict_values())
    with pytest.raises(braintrace.UsageError, match=f"(?s){message}"):
        nn.load_weights(model, changed(file, change))
    after = jax.tree.leaves(model.states().to_dict_values())
    assert all(jnp.array_equal(a, b) for a, b in zip(before, after, strict=True))
    nn.load_weights(model, file)  # control: the file itself is taken
    check_network(model)


def test_a_call_that_is_no_call():
    with pytest.raises(braintrace.UsageError, match="Not a model"):
        nn.load_weights("GRU", {})
    with pytest.raises(braintrace.UsageError, match="Invalid weights"):
        nn.load_weights(nn.Linear(2, 3), "file.msgpack")


def test_a_unit_is_converted_and_statistics_are_optional(file):
    model = made(Network)
    given = changed(file, lambda f: f.update(scale=np.full(3, 2e-3) * u.volt))
    del given["norm"]["running_mean"]
    nn.load_weights(model, given)
    assert model.scale.value.unit == u.mV
    np.testing.assert_allclose(model.scale.value.mantissa, 2.0)


@pytest.mark.parametrize("name", INITIAL)
def test_initial_weights_are_distributed_as_there(name):
    for weight, (deviation, kurtosis, count) in spread(name).items():
        expected, form, _ = RECORD[f"{name}/initial/{weight}"]
        if name == "GroupedLinear" and expected:
            expected = np.sqrt(2 / 40)  # there: 2 / (inputs * outputs), which shrinks the outputs
        error = np.sqrt(max(form - 1, 0) / (2 * count))  # of the ratio of two measured deviations
        np.testing.assert_allclose(deviation, expected, rtol=4 * error, atol=1e-9)
        if count > 10_000:
            np.testing.assert_allclose(kurtosis, form, atol=0.25)


def test_the_comparison_of_distributions_tells_a_truncated_normal():
    """Control: at the same deviation."""
    drawn = brainstate.nn.init.XavierNormal()((100, 600))
    form = RECORD["LSTMCell/initial/['Wi.weight']['weight']"][1]
    assert abs((drawn**4).mean() / drawn.std() ** 4 - form) > 0.5


@pytest.mark.filterwarnings("always")
def test_parameters_of_release_0_1_as_a_kind_of_parameter():
    with pytest.warns(DeprecationWarning, match="ETraceParam"):
        kind = braintrace.ETraceParam
    layers = (nn.Linear(2, 3, param_type=kind), nn.GRUCell(2, 3, param_type=kind))
    for layer in layers:
        states = layer.states(brainstate.ParamState).values()
        assert all(isinstance(state, kind) for state in states)
    with pytest.raises(braintrace.UsageError, match="operation is not defined"):
        layers[0].weight.execute(jnp.ones(2))
    xs = jnp.ones((4, B, 2))
    learner = braintrace.compile(layers[1], "d_rtrl", xs[0], batch_size=B)
    gradients = learner.etrace_grad(xs, step_fn=lambda x: jnp.mean(learner(x) ** 2))
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
