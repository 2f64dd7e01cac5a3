"""A comparison of online gradients with a reference, parameter by parameter."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import PyTree

from ..core._domains import array, choice, positive
from ..core._errors import UsageError
from ..core.analysis import Exactness, columns, dims

_FAR = 2.0  # a norm that is off by more than this factor gets a warning
# of the least precise dtype: what a computation in it may lose
_TOLERANCES = {"float64": 1e-8, "float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
_NARROWER = 0.5  # of eight bits and less: the direction at most
_ADVICE = (
    "do: an exact rule, such as 'ostl_recurrent'; 'eprop' where the readout leaks; "
    "or the multi-step VJP, which keeps every path inside a window"
)


@dataclasses.dataclass(frozen=True)
class GradientRow:
    """One parameter.

    Attributes:
        path: its path in the tree of parameters.
        shape: its shape.
        certificate: what the compiler states of it.
        cosine: cosine of the angle between the two gradients; 1 where both are zero, 0 where one
            is, nan where one is not finite.
        relative_error: norm of their difference over that of the reference; 0 where both are zero.
        norm: norm of the online gradient.
        reference_norm: norm of the reference.
        dropped: how many paths the compiler says are left out.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> online, reference = {"w": jnp.ones(2)}, {"w": 2 * jnp.ones(2)}
    >>> row = checks.compare_gradients(online, reference, {"['w']": "approximate"}).rows[0]
    >>> row.path, row.relative_error
    ("['w']", 0.5)
    """

    path: str
    shape: tuple[int, ...]
    certificate: Exactness
    cosine: float
    relative_error: float
    norm: float
    reference_norm: float
    dropped: int = 0


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """Online gradients against a reference: a row for each differentiable parameter.
    `print(report)` shows the table.

    A gradient counts as equal to its reference when

        |difference| <= tolerance * |reference of the parameter| + rounding * |whole reference|

    The first term judges each parameter by its own norm, so that a small one that is wrong does
    not hide behind large ones. The second is what rounding leaves of a gradient that is zero in
    mathematics, such as that of the key bias of an attention, whose terms have the size of the
    other gradients and cancel. What lies below it can be judged in float64 only.

    Attributes:
        rows: one `GradientRow` for each parameter.
        tolerance: relative error up to which two gradients count as equal.
        title: what was compared.
        rounding: what rounding may add, relative to the norm of the whole reference.
        disagreements: where another window gave another gradient, a line each.
        precision: the least precise dtype that takes part, which the tolerance is that of.
        warnings: what the compiler says of parameters whose norm may be far off.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> same = {"w": jnp.ones(2)}
    >>> report = checks.compare_gradients(same, same, {"['w']": "exact"})
    >>> report.ok, report.worst, report.norm_ratio
    (True, 0.0, 1.0)
    """

    rows: tuple[GradientRow, ...]
    tolerance: float
    title: str = "online gradients against BPTT"
    rounding: float = 0.0
    disagreements: tuple[str, ...] = ()
    precision: str = ""
    warnings: tuple[str, ...] = ()

    def __getitem__(self, path: str) -> GradientRow:
        """The row of the parameter at `path`."""
        rows = {row.path: row for row in self.rows}
        if path not in rows:
            raise KeyError(f"no parameter {path!r}; the parameters are {list(rows)}")
        return rows[path]

    def error(self, row: GradientRow) -> float:
        """The relative error of a row, less what rounding explains of it; nan where a gradient is
        not finite.
        """
        if row.reference_norm == 0:
            return 0.0 if row.norm <= self._noise else math.inf
        excess = row.relative_error - self._noise / row.reference_norm
        return float(np.maximum(excess, 0.0))  # which keeps a nan

    def equal(self, row: GradientRow) -> bool:
        """Whether the gradient of a row counts as equal to its reference."""
        return self.error(row) <= self.tolerance

    def vanishes(self, row: GradientRow) -> bool:
        """Whether both gradients of a row are zero up to rounding, which any rule gets right."""
        return max(row.norm, row.reference_norm) <= self._noise

    @property
    def worst(self) -> float:
        """The largest relative error, less what rounding explains, of a parameter that is certified
        exact; nan where one is not finite.
        """
        errors = [self.error(r) for r in self.rows if r.certificate == Exactness.EXACT]
        return float(np.max([0.0, *errors]))

    @property
    def ok(self) -> bool:
        """Whether every gradient is finite, every parameter that is certified exact equals the
        reference, and all windows give the same gradient.
        """
        finite = all(math.isfinite(r.norm + r.reference_norm) for r in self.rows)
        return finite and self.worst <= self.tolerance and not self.disagreements

    @property
    def dead(self) -> tuple[str, ...]:
        """Parameters whose online gradient is exactly zero."""
        return tuple(r.path for r in self.rows if r.norm == 0)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the whole gradients; nan where one is zero."""
        inner = sum(r.cosine * r.norm * r.reference_norm for r in self.rows)
        norms = math.prod(self._norms)
        return inner / norms if norms else math.nan

    @property
    def norm_ratio(self) -> float:
        """The norm of the whole online gradient over that of the reference."""
        online, reference = self._norms
        return online / reference if reference else math.nan

    @property
    def _norms(self) -> tuple[float, float]:
        """Those of the whole gradients."""
        pairs = [(r.norm, r.reference_norm) for r in self.rows]
        return math.hypot(*(a for a, _ in pairs)), math.hypot(*(b for _, b in pairs))

    @property
    def _noise(self) -> float:
        norms = (r.reference_norm for r in self.rows)
        return self.rounding * math.hypot(*(n for n in norms if math.isfinite(n)))

    def __str__(self) -> str:
        heads = ("parameter", "shape", "certificate", "cosine", "rel. error", "norm", "reference")
        rows: list[Sequence[str]] = [(*heads, "")]
        for r in self.rows:
            cosine, error = f"{r.cosine:.6f}", f"{r.relative_error:.1e}"
            norms = f"{r.norm:.3g}", f"{r.reference_norm:.3g}"
            shown = (r.path, dims(r.shape), str(r.certificate), cosine, error, *norms)
            rows.append((*shown, self._remark(r)))
        verdict = "every certificate holds" if self.ok else "NOT AS CERTIFIED"
        verdict = "WINDOWS DISAGREE" if self.disagreements else verdict
        equal = f"relative error at most {self.tolerance:.0e}"
        equal += f", as {self.precision} takes part" if self.precision else ""
        title = f"{self.title}: {verdict} (equal: {equal}, beyond rounding)"
        total = f"total: cosine {self.cosine:.4f}, norm {self.norm_ratio:.3f} of the reference's"
        return "\n".join([title, *columns(rows), *self.disagreements, *self._warning(), total])

    def _remark(self, row: GradientRow) -> str:
        if not math.isfinite(row.norm + row.reference_norm):
            return "NOT FINITE"
        if self.vanishes(row):
            return "zero" if row.norm == 0 else "zero up to rounding"
        if row.norm == 0:
            return "DEAD"
        if row.certificate == Exactness.EXACT:
            return "equal" if self.equal(row) else "WRONG"
        return f"{row.dropped} dropped path(s)" if row.dropped else ""

    def _warning(self) -> list[str]:
        """What to do about norms that are far from the reference's."""
        ratios = {"the whole gradient": self.norm_ratio}
        for row in self.rows:
            if not self.vanishes(row):
                ratios[row.path] = row.norm / row.reference_norm if row.reference_norm else math.inf
        far = {name: r for name, r in ratios.items() if r > _FAR or r < 1 / _FAR}
        if not far:
            return []
        named = ", ".join(f"{name} ({r:.2g}x)" for name, r in far.items())
        return [
            f"WARNING: norms are off by more than {_FAR:g}x: {named}",
            *(f"  {w}" for w in self.warnings or (_ADVICE,)),
        ]


def compare_gradients(
    online: PyTree,
    reference: PyTree,
    certificates: Mapping[str, Exactness],
    *,
    tolerance: float | None = None,
    dropped: Mapping[str, int] | None = None,
    title: str = "online gradients against BPTT",
    dtypes: Iterable[DTypeLike] = (),
) -> GradientReport:
    """A `GradientReport` of two trees of gradients.

    Args:
        online: the gradients to judge; None for parameters that are not differentiable.
        reference: a tree of the same structure.
        certificates: what is stated of each parameter, by path (`jax.tree_util.keystr`).
        tolerance: relative error up to which two gradients count as equal; by default 1e-8 in
            float64, 1e-3 in float32, 2e-2 in float16, 5e-2 in bfloat16 and 0.5 in less. The least
            precise dtype of the gradients and of `dtypes` decides. Rounding may add 1024 units of
            that dtype, at most the tolerance, relative to the norm of the whole reference.
        dropped: how many paths are left out, by path.
        title: what is compared.
        dtypes: in which the gradients were computed, beside their own: bfloat16 under float32
            parameters, say.

    Raises:
        UsageError: when the structures differ or a certificate is missing.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> online, reference = {"w": jnp.ones(2)}, {"w": 1.5 * jnp.ones(2)}
    >>> checks.compare_gradients(online, reference, {"['w']": "exact"}).ok
    False
    """
    tolerance = checked_tolerance("tolerance", tolerance)
    leaves, structure = jax.tree_util.tree_flatten_with_path(online)
    if jax.tree.structure(reference) != structure:
        raise UsageError(
            "The gradients have different structures.",
            got=jax.tree.structure(reference),
            expected=structure,
        )
    rows = []
    for (key, a), b in zip(leaves, jax.tree.leaves(reference), strict=True):
        path = jax.tree_util.keystr(key) or "value"
        if path not in certificates:
            raise UsageError(
                f"No certificate for {path}.",
                got=list(certificates),
                expected="one for each parameter",
            )
        a, b = array(f"gradient of {path}", a), array(f"reference of {path}", b)
        if a.shape != b.shape:
            raise UsageError(
                f"The gradients of {path} have different shapes.", got=b.shape, expected=a.shape
            )
        choice(f"certificate of {path}", str(certificates[path]), [str(e) for e in Exactness])
        count = (dropped or {}).get(path, 0)
        rows.append(GradientRow(path, np.shape(a), certificates[path], *_measure(a, b), count))
    every = [jnp.finfo(d) for d in (*(jnp.result_type(a) for _, a in leaves), *dtypes)]
    if not every:
        return GradientReport((), tolerance or 0.0, title)
    coarsest = max(every, key=lambda precision: float(precision.eps))
    precision = str(coarsest.dtype)
    allowed = _TOLERANCES.get(precision, _NARROWER) if tolerance is None else tolerance
    rounding = min(1024 * float(coarsest.eps), allowed)
    return GradientReport(tuple(rows), allowed, title, rounding, precision=precision)


def checked_tolerance(name: str, value: float | None) -> float | None:
    """A relative error, or None for what the precision allows."""
    return None if value is None else positive(name, value, zero=True)


def _measure(a: ArrayLike, b: ArrayLike) -> tuple[float, float, float, float]:
    """(cosine, relative error, norm of a, norm of b)."""
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = (np.ravel(v).astype(wide) for v in (a, b))
    na, nb, off = (float(np.linalg.norm(v)) for v in (a, b, a - b))
    if not math.isfinite(na + nb):
        return math.nan, math.nan, na, nb
    if na == 0 or nb == 0:
        same = na == nb
        return float(same), 0.0 if same else math.inf if nb == 0 else 1.0, na, nb
    return float(np.vdot(a, b).real / (na * nb)), off / nb, na, nb
