"""How a learner's arrays are divided between the devices of a mesh."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import PyTree

from ..cell import Cell
from ..core._compat import is_key, is_traced
from ..core._domains import described
from ..core._errors import UsageError
from ..core.analysis import Axes, axes_of_carry, axes_of_others, axes_of_params, columns, size
from ..core.engine import Division, Names, Rule
from ..core.traces import Zeros
from ._state import State

_UNKNOWN = Axes()


@dataclasses.dataclass(frozen=True)
class DividedArray:
    """A row of `Shardings`: an array and what of it is on one device.

    Attributes:
        name: what it is and its path.
        shape: of the whole.
        spec: the axes of the mesh along its own.
        bytes: of the whole.
        bytes_per_device: of the part on one device.
        whole: why it is not divided along an axis of the mesh that was asked for; '' where it is.

    >>> import braintrace
    >>> from jax.sharding import PartitionSpec
    >>> row = braintrace.DividedArray("carry", (8, 3), PartitionSpec("data", None), 96, 12)
    >>> row.bytes // row.bytes_per_device
    8
    """

    __module__ = "braintrace"

    name: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    bytes: int
    bytes_per_device: int
    whole: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Shardings:
    """Where a learner's arrays go on a mesh: made by `learner.shardings(mesh, data=, model=)`.

    Trees of `jax.sharding.NamedSharding`, for `jax.device_put` and for `in_shardings` of `jax.jit`;
    `print` shows each array with its bytes on one device, and why an array is held whole.

    Attributes:
        mesh: the devices.
        params: like the parameters: divided along neurons, the columns of a weight.
        carry: like the carry: along samples and neurons.
        state: like the learner's `State`, traces included; also without traces.
        x: like the inputs of one step: along samples.
        xs: like those of a sequence, time first.
        samples: for anything (T, B, ...): targets, masks, resets.
        whole: for what each device has all of.
        rows: every array of params, carry and traces, a `DividedArray` each.
        division: the names of the axes of the mesh.
        memory_budget: the most bytes of a gradient on one device; None for the learner's own.

    >>> import jax, jax.numpy as jnp
    >>> import braintrace
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((4, 3)), jnp.zeros((2, 3)), jnp.ones((5, 2, 4))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=h)
    >>> mesh = jax.make_mesh((1, 1), ("data", "model"))
    >>> divided = learner.shardings(mesh, data="data", model="model")
    >>> divided.params.spec, divided.carry.spec, divided.state.traces[0][0][0].spec
    (P(None, 'model'), P('data', 'model'), P('data', None, 'model'))
    >>> state = learner.init(w, h, shardings=divided)
    >>> state.traces[0][0][0].sharding.spec
    P('data', None, 'model')
    """

    __module__ = "braintrace"

    mesh: Mesh
    params: PyTree
    carry: PyTree
    state: State
    x: PyTree
    xs: PyTree
    samples: NamedSharding
    whole: NamedSharding
    rows: tuple[DividedArray, ...]
    division: Division = dataclasses.field(repr=False)
    memory_budget: int | None = None

    @property
    def bytes_per_device(self) -> dict[str, int]:
        """Bytes of 'params', 'carry' and 'traces' on one device."""
        return self._sums("bytes_per_device")

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of 'params', 'carry' and 'traces' as a whole."""
        return self._sums("bytes")

    def _sums(self, field: str) -> dict[str, int]:
        return {
            kind: sum(getattr(row, field) for row in self.rows if row.name.startswith(kind))
            for kind in ("params", "carry", "traces")
        }

    def __str__(self) -> str:
        lines = [("", "shape", "divided", "per device", "of", "")]
        for row in self.rows:
            along = ", ".join(str(name) for name in (*row.spec, *_missing(row)))
            own = size(row.bytes_per_device), size(row.bytes)
            lines.append((row.name, str(list(row.shape)), f"({along})", *own, row.whole))
        each, every = self.bytes_per_device, self.bytes
        sums = [(f"all {k}", "", "", size(each[k]), size(every[k]), "") for k in every]
        count = self.mesh.size
        title = f"Division between {count} device{'s' * (count > 1)}, {dict(self.mesh.shape)}"
        return "\n".join([title, *columns([*lines, *sums])])


def shardings(cell: Cell, rule: Rule, fingerprint: str, division: Division) -> Shardings:
    """The shardings of a learner's arrays on the mesh of `division`."""
    graph, mesh = cell.graph, division.mesh
    assert isinstance(mesh, Mesh)
    named = lambda spec: NamedSharding(mesh, spec)
    rows: list[DividedArray] = []

    def divided(name: str, shape: Sequence[int], dtype: Any, axes: Axes) -> NamedSharding:
        spec = division.spec(axes, shape)
        nbytes = math.prod(shape) * (0 if is_key(dtype) else np.dtype(dtype).itemsize)
        names = [name for name in spec if name is not None]
        devices = math.prod(division.devices(name) for name in names)
        shared = name.startswith("params")
        why = _why_whole(division, axes, tuple(shape), shared)
        rows.append(DividedArray(name, tuple(shape), spec, nbytes, nbytes // devices, why))
        return named(spec)

    own = [*axes_of_params(graph)]
    own += [_UNKNOWN] * (len(cell.params.leaves) - len(own))
    of_leaves = dict(zip(cell.leaf_numbers, axes_of_carry(graph), strict=False))
    params = [
        divided(f"params{_path(name)}", v.shape, v.dtype, axes)
        for name, v, axes in zip(cell.params.names, cell.params.leaves, own, strict=True)
    ]
    carry = [
        divided(f"carry{_path(name)}", v.shape, v.dtype, of_leaves.get(k, _UNKNOWN))
        for k, (name, v) in enumerate(zip(cell.carry.names, cell.carry.leaves, strict=True))
    ]
    is_zeros = lambda v: isinstance(v, Zeros)
    paths, structure = tree_flatten_with_path(rule.zeros(graph), is_leaf=is_zeros)
    of_traces = lambda path, v: divided(f"traces{keystr(path)}", v.shape, v.dtype, v.axes)
    traces = structure.unflatten([of_traces(*of) for of in paths])
    of_xs = [*zip(cell.x.leaves, axes_of_others(graph, graph.xs), strict=True)]
    inputs = lambda lead: cell.x.unflatten(
        [named(division.spec(axes, v.shape, lead)) for v, axes in of_xs]
    )
    divides = graph.batch_size or 1
    samples = division.samples if divides % division.devices(division.samples) == 0 else None
    whole: Any = named(PartitionSpec())
    return Shardings(
        mesh=mesh,
        params=cell.params.unflatten(params),
        carry=(of_carry := cell.carry.unflatten(carry)),
        state=State(of_carry, traces, whole, fingerprint),
        x=inputs(0),
        xs=inputs(1),
        samples=named(PartitionSpec(None, samples if graph.batch is not None else None)),
        whole=whole,
        rows=tuple(rows),
        division=division,
    )


def checked_shardings(given: object) -> Shardings | None:
    """What a call is given as `shardings`."""
    if given is None or isinstance(given, Shardings):
        return given
    raise UsageError(
        "Invalid shardings.",
        got=described(given),
        expected="what learner.shardings(mesh, data=, model=) returned",
    )


def division_of(mesh: object, data: Names, model: Names) -> Division:
    """The division along the axes `data` and `model` of a mesh, checked."""
    if not isinstance(mesh, Mesh):
        raise UsageError(
            "Invalid mesh.",
            got=described(mesh),
            expected="a jax.sharding.Mesh",
            do='make one: jax.make_mesh((4, 2), ("data", "model"))',
        )
    for option, name in (("data", data), ("model", model)):
        every = (name,) if isinstance(name, str) else name or ()
        if not isinstance(every, tuple) or not set(every) <= set(mesh.axis_names):
            raise UsageError(
                f"Invalid {option}.",
                got=repr(name),
                expected=f"an axis of the mesh, {mesh.axis_names}, a tuple of them, or None",
            )
    if set((data,) if isinstance(data, str) else data or ()) & set(
        (model,) if isinstance(model, str) else model or ()
    ):
        raise UsageError(
            "Samples and neurons are divided along different axes of the mesh.",
            got=f"data={data!r}, model={model!r}",
            expected="two axes, or None for one of them",
        )
    return Division(mesh, data or None, model or None)


def _why_whole(of: Division, axes: Axes, shape: tuple[int, ...], shared: bool) -> str:
    """Why an array is not divided by samples (if they do not share it) or by neurons, where that
    was asked for.
    """
    reasons, names = [], (of.samples, of.neurons)
    for what, name, axis in zip(("samples", "neurons"), names, axes, strict=True):
        if (shared and what == "samples") or (devices := of.devices(name)) == 1:
            continue
        if axis is None:
            reasons.append(f"no axis of {what}")
        elif shape[axis] % devices:
            reasons.append(f"{shape[axis]} {what} do not divide by {devices}")
    return "; ".join(reasons)


def _missing(row: DividedArray) -> list[None]:
    return [None] * (len(row.shape) - len(row.spec))


def _path(name: str) -> str:
    return "" if name == "value" else name


def divided_as(values: PyTree, like: PyTree) -> PyTree:
    """`values` on the devices on which `like` lies; as they are where that is not known yet, or is
    one device.
    """

    def placed(v: Any, old: Any) -> Any:
        if is_traced(v) or is_traced(old) or not isinstance(old, jax.Array):
            return v
        return v if len(old.sharding.device_set) == 1 else jax.device_put(v, old.sharding)

    if jax.tree.structure(values) != jax.tree.structure(like):
        return values
    return jax.tree.map(placed, values, like)
