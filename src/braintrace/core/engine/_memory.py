"""What the gradient of a sequence needs in memory, from shapes alone: nothing is allocated and
nothing is compiled.

    total  =  traces  +  traces being formed  +  K · (bytes of a step in a window)  +  gradients

A step in a window keeps what its reverse pass reads (found by tracing it over shapes), the data of
each site, a derivative for each y and, where an end trace is formed from the dynamics, the
derivatives of the state that form it. Factor carriers reverse each step at once and keep their
factors. BPTT keeps, for all T steps, what the reverse pass of the model's own step reads.
"""

import dataclasses

import jax
from jaxtyping import Array, PyTree

from ..analysis import CellGraph, axes_of_params, columns, size
from ..step import Perturbations, Values, plain_step, prelude, saving_step
from ..traces import FactorCarrier, TraceCarrier, nbytes, sensitivity_bytes, zero_perturbations
from ._divided import Division
from ._rule import Rule


@dataclasses.dataclass(frozen=True)
class ParameterMemory:
    """Bytes of the traces of one parameter, over all its sites: a line of a `MemoryPlan`.

    Attributes:
        path: the parameter's path, as in the report.
        traces: bytes.

    Example:
        >>> import braintrace, jax.numpy as jnp
        >>> cell = lambda p, h, x: ((h := p["a"] * h + x @ p["w"]), h)
        >>> params, h = {"a": jnp.ones(3), "w": jnp.ones((4, 3))}, jnp.zeros((2, 3))
        >>> learner = braintrace.compile(cell, "d_rtrl", jnp.zeros((2, 4)), params=params, carry=h)
        >>> [(row.path, row.traces) for row in learner.memory_plan(1000).parameters]
        [("['a']", 24), ("['w']", 96)]
    """

    __module__ = "braintrace"

    path: str
    traces: int


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes that `etrace_grad` needs beside parameters, inputs and the model's own state; prints as
    a table.

    Attributes:
        algorithm: its name.
        steps: T, the length of the sequence.
        window: steps done at once.
        parameters: the traces of each parameter; a site that two parameters share is counted at
            both.
        traces: eligibility traces between steps.
        forming: traces that are being formed while the old ones are still read, and what else
            forming them takes.
        buffers: what a window keeps for its steps.
        gradients: the gradient, and the part of it that a window adds.
        bptt: what backpropagation through time would keep for T steps, its gradient included.
        devices: how many devices there are; the bytes are those of one.

    Example:
        >>> import braintrace, jax.numpy as jnp
        >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
        >>> h = jnp.zeros((2, 3))
        >>> learner = braintrace.compile(
        ...     cell, "d_rtrl", jnp.zeros((2, 4)), params=jnp.ones((4, 3)), carry=h
        ... )
        >>> learner.memory_plan(1000).traces  # 4 bytes for each of 2 samples, 4 inputs, 3 outputs
        96
    """

    __module__ = "braintrace"

    algorithm: str
    steps: int
    window: int
    parameters: tuple[ParameterMemory, ...]
    traces: int
    forming: int
    buffers: int
    gradients: int
    bptt: int
    devices: int = 1

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.traces + self.forming + self.buffers + self.gradients

    def __str__(self) -> str:
        rows = [("", "bytes", ""), ("traces", size(self.traces), "between steps; for any T")]
        rows += [(f"  {p.path}", size(p.traces), "") for p in self.parameters]
        rows += [
            ("traces being formed", size(self.forming), "while the old ones are read"),
            ("window", size(self.buffers), f"{self.window} of {self.steps} steps at once"),
            ("gradients", size(self.gradients), ""),
            ("total", size(self.total), "beside parameters, inputs and the model's state"),
            ("BPTT", size(self.bptt), f"for {self.steps} steps; grows with T"),
        ]
        title = f"{self.algorithm}: memory of a gradient over {self.steps} steps"
        title += f", on each of {self.devices} devices" * (self.devices > 1)
        return "\n".join([title, *columns(rows)])


def memory_plan(
    graph: CellGraph,
    rule: Rule,
    steps: int,
    window: int,
    return_state: bool,
    traces: bool,
    division: Division | None = None,
) -> MemoryPlan:
    """The plan of `etrace_grad` over `steps` steps, `window` at once; with `division` that of one
    device.

    `traces`: whether traces are there at the start. Without them, with `return_state=False` and one
    window for all steps none is formed at all.
    """
    carrier = rule.carrier
    window = min(window, steps, carrier.longest_window or window)
    forms = return_state or window < steps
    some = traces or forms or isinstance(carrier, FactorCarrier)
    held = nbytes(jax.eval_shape(lambda: rule.init(graph))) if some else 0
    gradients = 2 * nbytes([v for v in graph.params if v.differentiable])
    outputs = nbytes([s.y for s in graph.sites])
    data = nbytes([v for s in graph.sites for v in s.data])
    if isinstance(carrier, FactorCarrier):
        forming, each = held, (data + 2 * outputs) * carrier.pairs
    else:
        forming = 0
        each = (
            _kept_by_a_step(graph, perturbed=True)
            + data
            + nbytes(jax.eval_shape(lambda: zero_perturbations(graph)))
        )
        if forms:
            assert isinstance(carrier, TraceCarrier)
            sites = zip(graph.sites, graph.trace_bytes(carrier), strict=True)
            forming = sum(own for site, own in sites if not carrier.moves_in_place(graph, site))
            forming += carrier.working_bytes(graph, window)
            each += sensitivity_bytes(graph)
    rows = graph.reports(carrier) if held else []
    paths = tuple(
        ParameterMemory(r.path, sum(s.trace_bytes or 0 for s in r.sites)) for r in rows if r.sites
    )
    bptt = steps * _kept_by_a_step(graph, perturbed=False) + gradients
    whole = MemoryPlan(
        rule.name, steps, window, paths, held, forming, window * each, gradients, bptt
    )
    return whole if division is None else _on_one_device(whole, graph, rule, division)


def _on_one_device(plan: MemoryPlan, graph: CellGraph, rule: Rule, of: Division) -> MemoryPlan:
    """What of the plan falls on one device. Traces and gradients are divided as `Division` has
    them; traces that are being formed in the same proportion; what a window holds by its samples.
    """
    every, specs = rule.zeros(graph), of.of_traces(rule, graph)
    parts = jax.tree.map(lambda v, spec: v.nbytes // of.parts(spec), every, specs)
    carried = parts["carrier"] if graph.extra else parts
    in_site = lambda n: sum(jax.tree.leaves(rule.carrier.of_site(carried, n)))
    numbers = {row.path: row.sites for row in graph.parameters}
    rows = tuple(
        dataclasses.replace(p, traces=sum(map(in_site, numbers[p.path]))) for p in plan.parameters
    )
    traces = sum(jax.tree.leaves(parts)) if plan.traces else 0
    forming = -(-plan.forming * traces // plan.traces) if plan.traces else plan.forming
    axes = zip(axes_of_params(graph), graph.params, strict=False)
    gradients = 2 * sum(
        nbytes([v]) // of.parts(of.spec(a, v.shape)) for a, v in axes if v.differentiable
    )
    apart = of.devices(of.samples)
    apart = apart if graph.batch is not None and graph.batch.size % apart == 0 else 1
    return dataclasses.replace(
        plan,
        parameters=rows,
        traces=traces,
        forming=forming,
        buffers=-(-plan.buffers // apart),
        gradients=gradients,
        bptt=-(-plan.bptt // apart),
        devices=of.mesh.size,
    )


def _kept_by_a_step(graph: CellGraph, perturbed: bool) -> int:
    """Bytes that a reverse pass keeps for each step of a scan: of the engine's step with
    `perturbed`, else of the model's own.
    """
    like = lambda variables, *lead: [
        jax.ShapeDtypeStruct((*lead, *v.shape), v.dtype) for v in variables
    ]

    def pull(xs: list[Array], params: list[Array], carry: list[Array]) -> PyTree:
        def forward(
            params: list[Array], carry: list[Array], perturbations: Perturbations | None
        ) -> PyTree:
            ready = prelude(graph, params)

            def single(carry: list[Array], at: tuple[Values, Perturbations | None]) -> PyTree:
                if not perturbed:
                    return plain_step(graph, ready, carry, at[0])
                done = saving_step(graph, ready, carry, *at)
                return done.local, done.outs

            return jax.lax.scan(single, carry, (xs, perturbations))

        zeros = zero_perturbations(graph, xs[0].shape[0]) if perturbed else None
        return jax.vjp(forward, params, carry, zeros)[1]

    one, two = (
        nbytes(jax.eval_shape(pull, like(graph.xs, steps), like(graph.params), like(graph.carry)))
        for steps in (1, 2)
    )
    return two - one
