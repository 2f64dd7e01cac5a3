"""Learners and states in files and in other processes."""

import concurrent.futures
import multiprocessing
import pickle
import subprocess
import sys

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

import braintrace
from braintrace import State, UsageError

from . import importable
from .importable import FRONT_ENDS, I, N, gradient, learner_of, loss, spiking, spiking_parts, xs
from .test_states import made, refusal

pytestmark = pytest.mark.usefixtures("single_precision")


def moved(front_end, **options):
    """(front end, learner, model, carry) after a step, where the learner holds its own state."""
    learner, model, carry = learner_of(front_end, **options)
    if front_end in ("nnx", "brainstate"):
        learner(xs()[0])
    return front_end, learner, model, carry


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_a_pickled_learner_computes_the_same(front_end, algorithm):
    options = {"decay_or_rank": 0.5} if algorithm == "pp_prop" else {}
    front_end, learner, model, carry = moved(front_end, algorithm=algorithm, **options)
    again = pickle.loads(pickle.dumps(learner))
    assert type(again) is type(learner)
    expected = gradient(front_end, learner, model, carry)
    found = gradient(front_end, again, model, carry)
    assert all(v.any() for v in expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    if front_end in ("function", "equinox"):  # and it takes the states of the other
        learner.border.check(again.init(model, carry))
    else:
        graphs = [L.report.counts for L in (again, learner)]
        assert graphs[0] == graphs[1]


def test_a_learner_pickles_with_its_options():
    params, carry, x = spiking_parts()
    options = {"leak": "model", "trainable": ["*W*", "*O*"], "batch_size": 2, "max_slots": 3}
    learner = braintrace.compile(spiking, "ottt", x, params=params, carry=carry, **options)
    again = pickle.loads(pickle.dumps(learner))
    assert again.rule == learner.rule and again.rule.carrier.leaks == (0.5, 0.5)
    assert again.border.fingerprint == learner.border.fingerprint
    assert again.graph.batch_size == 2 and again.report.counts == learner.report.counts


def test_a_brainstate_learner_that_is_not_compiled_pickles():
    learner = pickle.loads(pickle.dumps(braintrace.D_RTRL(importable.Leaky())))
    learner.model.init_state(2)
    learner.compile_graph(xs()[0])(xs()[0])


def test_a_mapped_brainstate_learner_pickles():
    learner = learner_of("brainstate", vmap=True)[0]
    again = pickle.loads(pickle.dumps(learner))
    assert type(again) is braintrace.ETraceVmap
    np.testing.assert_array_equal(again(xs()[0]), learner(xs()[0]))


@pytest.mark.parametrize("cell", ["brainstate", "braintrace"])
def test_layers_of_the_libraries_pickle(cell):
    layer = {"brainstate": brainstate.nn, "braintrace": braintrace.nn}[cell].GRUCell(I, N)
    learner = braintrace.compile(layer, "d_rtrl", xs()[0], batch_size=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(learner))(xs()[0]), learner(xs()[0]))


def lambdas():
    """For each front end a learner with something that cannot be pickled."""
    params, carry, x = spiking_parts()
    cell = lambda p, h, x: spiking(p, h, x)
    yield braintrace.compile(cell, "d_rtrl", x, params=params, carry=carry)
    yield learner_of("function", trainable=lambda path, leaf: True)[0]
    model = importable.LeakyEquinox(jnp.ones((I, N)), lambda v: v)
    zero = jnp.zeros((2, N))
    yield braintrace.compile(model, "d_rtrl", xs()[0], carry=zero)
    wrt = lambda path, value: isinstance(value, nnx.Param)
    yield braintrace.compile(importable.LeakyNNX(), "d_rtrl", xs()[0], wrt=wrt)
    module = importable.Leaky()
    module.activation = lambda v: v
    yield braintrace.compile(module, "d_rtrl", xs()[0], batch_size=2)


def test_what_cannot_be_pickled_is_named():
    for learner in lambdas():
        with pytest.raises(UsageError, match="The learner cannot be pickled") as error:
            pickle.dumps(learner)
        assert "lambda" in str(error.value) and "at the top level of a module" in str(error.value)


def rule_of(learner):
    return learner.rule


def test_learners_go_to_another_process():
    """Every front end, in one process that starts from nothing."""
    function, equinox, *owners = [moved(front_end) for front_end in FRONT_ENDS]
    # an Equinox module that holds jax.nn.relu does not pickle by itself, as its learner does
    given = [function, *((front_end, learner, None, None) for front_end, learner, *_ in owners)]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        found = list(pool.map(gradient, *zip(*given, strict=True)))
        assert pool.submit(rule_of, equinox[1]).result() == equinox[1].rule
    expected = [gradient(*g) for g in given]
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


# States
# --------------------------------------------------------------------------------------------------

WRITTEN = {
    "flax's dicts": lambda s: serialization.from_state_dict(s, serialization.to_state_dict(s)),
    "flax's bytes": lambda s: serialization.from_bytes(s, serialization.to_bytes(s)),
    "a plain dict": lambda s: State(**vars(s)),
    "pickle": lambda s: pickle.loads(pickle.dumps(s)),
}
NAMES = ["d_rtrl", "pp_prop 0.5", "eprop filtered", "ostl_recurrent", "osttp"]


def same_arrays(one, other):
    one, other = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WRITTEN)
def test_a_state_that_was_written_is_the_same(way, name):
    learner, _, start = made(name)
    state = jax.tree.map(lambda v: v + 1, start)
    read = WRITTEN[way](state)
    assert jax.tree.structure(read) == jax.tree.structure(state)
    assert same_arrays(read, state)
    learner.border.check(read)
    unformed = State(state.carry, None, state.steps, state.fingerprint)
    assert WRITTEN[way](unformed).traces is None


def test_the_state_of_another_learner_is_known_from_the_file():
    learner, params, own = made("d_rtrl")
    stored = serialization.to_bytes(made("eprop")[2])
    read = serialization.from_bytes(own, stored)
    assert "e-prop" in refusal(lambda: learner.update(params, read, xs()[0]))


def test_info_is_written_too():
    learner, params, start = made("d_rtrl")
    info = learner.etrace_grad(params, start, xs(), loss_fn=loss)[2]
    read = serialization.from_bytes(info, serialization.to_bytes(info))
    assert same_arrays(read, info) and read.aux is None


def test_a_state_in_an_npz_file(tmp_path):
    learner, params, start = made("d_rtrl")
    state, _ = learner.update(params, start, xs()[0])
    leaves = {str(k): v for k, v in enumerate(jax.tree.leaves(state))}
    np.savez(tmp_path / "state.npz", fingerprint=state.fingerprint, **leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as stored:
        arrays = [stored[str(k)] for k in range(len(leaves))]
        read = jax.tree.structure(start).unflatten(arrays)
        assert str(stored["fingerprint"]) == read.fingerprint
    expected = learner.update(params, state, xs()[1])
    assert same_arrays(learner.update(params, read, xs()[1]), expected)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_a_state_in_an_orbax_checkpoint(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    learner, params, start = made("d_rtrl")
    state, _ = learner.update(params, start, xs()[0])
    with orbax.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        read = checkpointer.restore(tmp_path / "state", item=start)
    assert type(read) is State
    expected = learner.update(params, state, xs()[1])
    assert same_arrays(learner.update(params, read, xs()[1]), expected)


def test_an_exported_step_takes_states():
    pytest.importorskip("flatbuffers")
    learner, params, start = made("eprop filtered")
    step = lambda s, x: learner.update(params, s, x)
    exported = jax.export.export(jax.jit(step))(start, xs()[0])
    read = jax.export.deserialize(exported.serialize())
    state, _ = read.call(start, xs()[0])
    assert state.fingerprint == start.fingerprint
    new, out = read.call(state, xs()[1])
    expected, expected_out = step(step(start, xs()[0])[0], xs()[1])
    np.testing.assert_allclose(out, expected_out, rtol=1e-5)
    learner.update(params, new, xs()[2])
    assert jax.tree.structure(new) == jax.tree.structure(expected)
    with pytest.raises(ValueError, match="structure"):  # JAX's own: another fingerprint
        read.call(made("eprop filtered less")[2], xs()[0])


def test_an_exported_sequence_gives_states_and_reports():
    pytest.importorskip("flatbuffers")
    learner, params, start = made("d_rtrl")
    of = lambda s, xs: learner.etrace_grad(params, s, xs, loss_fn=loss)
    kernel = jax.export.DisabledSafetyCheck.custom_call("braintrace_traces")
    exported = jax.export.export(jax.jit(of), disabled_checks=[kernel])(start, xs())
    found = jax.export.deserialize(exported.serialize()).call(start, xs())
    expected = of(start, xs())
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


LATE = """
import sys
import braintrace, jax.numpy as jnp
cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
w, h, x = jnp.ones((4, 3)), jnp.zeros((2, 3)), jnp.ones((2, 4))
learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
state = learner.init(w, h)
assert not [m for m in sys.modules if m.partition(".")[0] in ("flax", "equinox", "brainstate")]
from flax import serialization
state, _ = learner.update(w, state, x)
read = serialization.from_bytes(state, serialization.to_bytes(state))
assert (read.traces[0][0][0] == state.traces[0][0][0]).all()
"""


def test_flax_is_served_when_a_program_has_imported_it_and_not_before():
    subprocess.run([sys.executable, "-c", LATE], check=True, timeout=300)
