"""Every public name of the PyPI package braintrace 0.2.6 is here, or `docs/migration.md` says that
it is left out.
"""

import inspect
import re
import warnings
from pathlib import Path

import brainstate
import jax.numpy as jnp
import pytest
from brainstate import nn

import braintrace

#: `<what>: <its names there>`, as `dir` gives them there.
THERE = (Path(__file__).parent / "peer_names.txt").read_text()
PAGE = (Path(__file__).parents[2] / "docs/migration.md").read_text()
NAMES = {
    what: names.split()
    for what, names in re.findall(r"^(\S+): ((?:.|\n +)*)$", THERE, re.MULTILINE)
}


def left_out():
    """What -> names, from the table of the page; not what it names in their place."""
    section = PAGE.partition("### What is left out")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    return {
        what: re.findall(r"`(\w+)`", re.sub(r"\(here .*?\)", "", names)) for what, names in rows
    }


@pytest.fixture(scope="module")
def objects():
    """Each of these objects; of learners one of every algorithm that the package has, too."""
    brainstate.random.seed(0)
    model, x = nn.Sequential(nn.GRUCell(2, 3), nn.Linear(3, 1)), jnp.zeros(2)
    learners = [
        braintrace.compile(model, name, x) for name in ("d_rtrl", "eprop", "ostl_recurrent")
    ]
    learner = braintrace.compile(model, "pp_prop", x, decay_or_rank=19)
    scope = {"learner": learner, "graph": learner.graph, "braintrace": braintrace}
    found = {what: [eval(what, scope)] for what in NAMES}
    return found | {"learner": [learner, *learners]}


def has(value, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are deprecated there and here
        return hasattr(value, name)


@pytest.mark.parametrize("what", NAMES)
def test_every_name_is_here_or_said_to_be_left_out(what, objects):
    missing = {n for n in NAMES[what] if not any(has(v, n) for v in objects[what])}
    assert missing == set(left_out().get(what, ()))


def test_the_table_names_what_is_known():
    assert set(left_out()) <= set(NAMES)
    for what, names in left_out().items():
        assert len(names) > 0 and set(names) <= set(NAMES[what])
    assert len(NAMES) == 11 and {"compile", "DNI", "__version_info__"} <= {*NAMES["braintrace"]}


def test_outputs_of_an_evolution_are_asked_for_as_there():
    default = inspect.signature(braintrace.D_RTRL.etrace_evolve).parameters["return_outputs"]
    assert default.default is False
