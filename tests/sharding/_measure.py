"""What one rule does on one cell and one mesh, beside one device."""

import dataclasses
import functools
import math
import re
from collections import Counter

import jax
import numpy as np
from jax.sharding import AxisType

import braintrace
from braintrace.core.traces import Zeros
from braintrace.rules import ALGORITHMS as RULES
from zoo._algorithms import Algorithm
from zoo.algorithms import ALGORITHMS

from ._cells import example, loss

MESHES = {"8x1": (8, 1), "4x2": (4, 2), "1x8": (1, 8)}
#: Of rules that the matrix has no setting of.
OPTIONS = {"rflo": {"random_feedback_key": 0}}
#: By XLA's own division, by device with one sum at the end, on explicit axes.
WAYS = "xla", "by device", "explicit"
_MOVES = "all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"
_CALL = re.compile(rf"= (.*?) ({'|'.join(_MOVES)})(?:-start)?\(")


@dataclasses.dataclass
class Measured:
    """Relative distances from one device, bytes of traces on a device, and what the compiled
    program sends round.
    """

    rule: str
    cell: str
    mesh: str
    way: str
    refused: str = ""  # on one device as well
    failed: str = ""
    gradient: float = 0.0
    state: float = 0.0
    losses: float = 0.0
    bytes: int = 0  # of the traces, on the device that has most
    planned: int = 0
    total: int = 0
    whole: int = 0  # of these, held whole
    sent: dict = dataclasses.field(default_factory=dict)
    gathered: list = dataclasses.field(default_factory=list)  # moves of a trace's size
    why_not: str = ""  # the gradient is not by device

    @property
    def off(self):
        return max(self.gradient, self.state, self.losses)

    def __str__(self):
        words = f"{self.rule:16} {self.cell:18} {self.mesh} {self.way:10}"
        if self.refused or self.failed:
            return f"{words} {self.refused or 'FAILED ' + self.failed}"
        held = f"{self.bytes} of {self.total} B ({self.whole} whole)"
        sent = ", ".join(f"{n} {kind}" for kind, n in self.sent.items())
        gathered = f"  GATHERS {self.gathered}" if self.gathered else ""
        return f"{words} {self.off:.0e}  {held}  {sent}{gathered}  {self.why_not}"


def chosen(rule):
    """The setting in which the matrix runs a rule, which may have several names."""
    same = (a for a in ALGORITHMS.values() if RULES[a.name] is RULES[rule])
    return next(same, Algorithm(rule, OPTIONS.get(rule, {})))


@functools.cache
def on_one_device(rule, cell):
    """(learner, arguments, signals, what it returns); an error of the library as it is."""
    function, params, carry, xs, targets, signals = example(cell)
    how = chosen(rule)
    learner = braintrace.compile(function, rule, xs[0], params=params, carry=carry, **how.options)
    signals = {k: v for k, v in signals.items() if k == how.signal}

    def run(params, carry, xs, targets, signals):
        state = learner.init(params, carry)
        return gradient(learner, params, state, xs, targets, signals)

    given = params, carry, xs, targets, signals
    return learner, given, jax.jit(run)(*given)


def gradient(learner, params, state, xs, targets, signals, shardings=None):
    return learner.etrace_grad(
        params, state, xs, targets, loss_fn=loss, window=2, shardings=shardings, **signals
    )


def distance(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    off = [(np.linalg.norm(np.asarray(a) - b), np.linalg.norm(b)) for a, b in pairs]
    return max((float(d / (n or 1)) for d, n in off), default=0.0)


def divided(rule, cell, mesh, way):
    """(learner, shardings, the compiled program, its arguments)."""
    learner, (params, carry, xs, targets, signals), _ = on_one_device(rule, cell)
    kind = AxisType.Explicit if way == "explicit" else AxisType.Auto
    mesh = jax.make_mesh(MESHES[mesh], ("data", "model"), axis_types=(kind,) * 2)
    with jax.set_mesh(mesh):
        shardings = learner.shardings(mesh, data="data", model="model")
        params, xs = jax.device_put((params, xs), (shardings.params, shardings.xs))
        targets, signals = jax.device_put((targets, signals), shardings.samples)
        given = params, learner.init(params, carry, shardings=shardings), xs, targets, signals
        own = shardings if way == "by device" else None
        program = jax.jit(functools.partial(gradient, learner, shardings=own))
        return learner, shardings, program.lower(*given).compile(), given


def measure(rule, cell, mesh, way):
    found = Measured(rule, cell, mesh, way)
    try:
        *_, (gradients, state, info) = on_one_device(rule, cell)
    except braintrace.BrainTraceError as error:
        found.refused = str(error).splitlines()[0]
        return found
    learner, shardings, program, given = divided(rule, cell, mesh, way)
    after = program(*given)
    found.gradient = distance(after[0], gradients)
    found.state = distance((after[1].carry, after[1].traces), (state.carry, state.traces))
    found.losses = distance(after[2].losses, info.losses)
    traces = [v for v in jax.tree.leaves(after[1].traces) if isinstance(v, jax.Array)]
    on = Counter()
    for v in traces:
        for shard in v.addressable_shards:
            on[shard.device] += shard.data.nbytes
    found.bytes = max(on.values(), default=0)
    found.planned = learner.memory_plan(4, shardings=shardings).traces
    rows = [row for row in shardings.rows if row.name.startswith("traces")]
    found.total = sum(row.bytes for row in rows)
    found.whole = sum(row.bytes for row in rows if row.bytes == row.bytes_per_device)
    found.sent, large = moves(program, smallest_trace(learner, MESHES[mesh][0]))
    # of the newest JAX, XLA gathers a gradient in a loop that it was told nothing of: no trace,
    # which has its samples beside the weight's axes
    of_gradients = [list(v.shape) for v in jax.tree.leaves(given[0])] if way == "xla" else []
    found.gathered = [shape for shape in large if shape not in of_gradients]
    found.why_not = learner._programs.part(MESHES[mesh][0]).why_not
    return found


def smallest_trace(learner, parts):
    """Elements of the smallest trace of a weight matrix with the samples of one device, whole along
    its neurons.
    """
    is_zeros = lambda v: isinstance(v, Zeros)
    every = jax.tree.leaves(learner.rule.zeros(learner.graph), is_leaf=is_zeros)
    matrices = [v for v in every if v.axes.neurons is not None and len(v.shape) > 2]
    return min((math.prod(v.shape) // parts for v in matrices), default=None)


def moves(program, size):
    """How often the program sends what round; and what is as large as a trace, but a sum."""
    sent, large = Counter(), []
    for result, kind in _CALL.findall(program.as_text()):
        sent[kind] += 1
        shapes = [[int(n) for n in s.split(",") if n] for s in re.findall(r"\[([\d,]*)\]", result)]
        if kind != "all-reduce" and size is not None:
            large += [s for s in shapes if math.prod(s) >= size]
    return dict(sent), large
