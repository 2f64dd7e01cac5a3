"""The report is one class at every front end, and says the same of the same network."""

import io

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import braintrace
from braintrace import CompilationReport, DiagnosticKind, DiagnosticLevel

B, IN, N, OUT = 2, 3, 4, 2


class Brainstate(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(jnp.ones((IN, N)))
        self.r = brainstate.ParamState(jnp.ones((N, N)))
        self.o = brainstate.ParamState(jnp.ones((N, OUT)))

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, N)))
        self.count = brainstate.ShortTermState(jnp.zeros(batch_size, int))

    def update(self, x):
        self.h.value = jnp.tanh(0.8 * self.h.value + x @ self.w.value + self.h.value @ self.r.value)
        self.count.value = self.count.value + 1
        return self.h.value @ self.o.value


class NNX(nnx.Module):
    def __init__(self):
        self.w, self.r, self.o = (nnx.Param(jnp.ones(s)) for s in ((IN, N), (N, N), (N, OUT)))
        self.h, self.count = nnx.Variable(jnp.zeros((B, N))), nnx.Variable(jnp.zeros(B, int))

    def __call__(self, x):
        self.h[...] = jnp.tanh(0.8 * self.h[...] + x @ self.w[...] + self.h[...] @ self.r[...])
        self.count[...] = self.count[...] + 1
        return self.h[...] @ self.o[...]


class Equinox(eqx.Module):
    w: jax.Array
    r: jax.Array
    o: jax.Array

    def __init__(self):
        self.w, self.r, self.o = (jnp.ones(s) for s in ((IN, N), (N, N), (N, OUT)))

    def __call__(self, x, carry):
        return step({"w": self.w, "r": self.r, "o": self.o}, carry, x)


def step(p, carry, x):
    h = jnp.tanh(0.8 * carry["h"] + x @ p["w"] + carry["h"] @ p["r"])
    return {"h": h, "count": carry["count"] + 1}, h @ p["o"]


X = jnp.ones((B, IN))
CARRY = {"h": jnp.zeros((B, N)), "count": jnp.zeros(B, int)}
PARAMS = {"w": jnp.ones((IN, N)), "r": jnp.ones((N, N)), "o": jnp.ones((N, OUT))}
FRONT_ENDS = {
    "brainstate": (Brainstate, {"batch_size": B}, str),
    "nnx": (NNX, {}, str),
    "equinox": (Equinox, {"carry": CARRY}, str),
    "function": (lambda: step, {"carry": CARRY, "params": PARAMS}, lambda name: f"['{name}']"),
}


@pytest.fixture(params=FRONT_ENDS)
def front_end(request):
    """The report, the name of a parameter in it, and the name of a state."""
    make, given, name = FRONT_ENDS[request.param]
    state = name if request.param in ("brainstate", "nnx") else lambda n: f"['{n}']"
    return braintrace.compile(make(), "d_rtrl", X, **given).report, name, state


def test_the_same_of_the_same_network(front_end):
    report, name, state = front_end
    assert type(report) is CompilationReport
    assert [path for _, (path,) in report.hidden_groups] == [(state("h"),)]
    assert sorted(report.etrace_weights) == [((name("r"),), [0]), ((name("w"),), [0])]
    ((path, reason),) = report.excluded_weights
    assert path == (name("o"),) and reason
    assert report.dynamic_states == [(state("count"),)]
    counts = report.counts
    assert (
        counts["hidden_groups"] == 1
        and counts["etrace_weights"] == 2
        and counts["excluded_weights"] == 1
    )
    assert counts["exact"] == 1 and counts["approximate"] == 2 and counts["errors"] == 0
    assert (
        counts["warnings"]
        == sum(r.level is DiagnosticLevel.WARNING for r in report.diagnostics)
        > 0
    )
    included = {
        r.weight_path for r in report.diagnostics if r.kind is DiagnosticKind.RELATION_INCLUDED
    }
    assert included == {(name("w"),), (name("r"),)}
    partial = [r for r in report.diagnostics if r.kind is DiagnosticKind.RELATION_PARTIAL_PATH]
    assert all("test_compilation_report.py" in r.context["source"] for r in partial) and partial


def test_it_can_be_shown(front_end):
    report, name, _ = front_end
    text = report.to_str()
    assert name("w") in text and "recurrent" in text and str(report) == text
    assert "leaves out a recurrent path" in report.to_str(2) and "leaves out" not in text
    out = io.StringIO()
    report.show(2, file=out)
    assert out.getvalue() == report.to_str(2) + "\n"


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_compile_shows_it(name, capsys):
    make, given, _ = FRONT_ENDS[name]
    braintrace.compile(make(), "d_rtrl", X, verbose=2, **given)
    assert "leaves out a recurrent path" in capsys.readouterr().out
