"""A comparison of online gradients with a reference, parameter by parameter."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..core._errors import UsageError, problem
from ..core.analysis import Exactness, columns, dims


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
    >>> report = checks.compare_gradients({"w": jnp.ones(2)}, {"w": 2 * jnp.ones(2)}, {"['w']": "approximate"})
    >>> row = report.rows[0]
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

    Attributes:
        rows: one `GradientRow` for each parameter.
        tolerance: relative error up to which two gradients count as equal.
        title: what was compared.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> report = checks.compare_gradients({"w": jnp.ones(2)}, {"w": jnp.ones(2)}, {"['w']": "exact"})
    >>> report.ok, report.worst
    (True, 0.0)
    """

    rows: tuple[GradientRow, ...]
    tolerance: float
    title: str = "online gradients against BPTT"

    def __getitem__(self, path: str) -> GradientRow:
        """The row of the parameter at `path`."""
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(f"no parameter {path!r}; the parameters are {[r.path for r in self.rows]}")

    @property
    def worst(self) -> float:
        """The largest relative error of a parameter that is certified exact; nan where one is not
        finite.
        """
        errors = [r.relative_error for r in self.rows if r.certificate == Exactness.EXACT]
        return float(np.max(errors)) if errors else 0.0

    @property
    def ok(self) -> bool:
        """Whether every gradient is finite and every parameter that is certified exact equals the
        reference.
        """
        return (
            bool(np.isfinite([r.relative_error for r in self.rows]).all())
            and self.worst <= self.tolerance
        )

    @property
    def dead(self) -> tuple[str, ...]:
        """Parameters whose online gradient is exactly zero."""
        return tuple(r.path for r in self.rows if r.norm == 0)

    def __str__(self) -> str:
        heads = (
            "parameter",
            "shape",
            "certificate",
            "cosine",
            "rel. error",
            "norm",
            "reference",
            "",
        )
        rows: list[Sequence[str]] = [heads]
        for r in self.rows:
            numbers = (
                f"{r.cosine:.6f}",
                f"{r.relative_error:.1e}",
                f"{r.norm:.3g}",
                f"{r.reference_norm:.3g}",
            )
            rows.append((r.path, dims(r.shape), str(r.certificate), *numbers, self._remark(r)))
        verdict = "every certificate holds" if self.ok else "NOT AS CERTIFIED"
        return "\n".join(
            [
                f"{self.title}: {verdict} (equal: relative error at most {self.tolerance:.0e})",
                *columns(rows),
            ]
        )

    def _remark(self, row: GradientRow) -> str:
        if not np.isfinite(row.relative_error):
            return "NOT FINITE"
        if row.norm == 0:
            return "zero" if row.reference_norm == 0 else "DEAD"
        if row.certificate == Exactness.EXACT:
            return "equal" if row.relative_error <= self.tolerance else "WRONG"
        return f"{row.dropped} dropped path(s)" if row.dropped else ""


def compare_gradients(
    online: Any,
    reference: Any,
    certificates: Mapping[str, Exactness],
    *,
    tolerance: float | None = None,
    dropped: Mapping[str, int] | None = None,
    title: str = "online gradients against BPTT",
) -> GradientReport:
    """A `GradientReport` of two trees of gradients.

    Args:
        online: the gradients to judge; None for parameters that are not differentiable.
        reference: a tree of the same structure.
        certificates: what is stated of each parameter, by path (`jax.tree_util.keystr`).
        tolerance: relative error up to which two gradients count as equal; by default 1e-8 in
            float64, 1e-3 in float32 and 5e-2 below.
        dropped: how many paths are left out, by path.
        title: what is compared.

    Raises:
        UsageError: when the structures differ or a certificate is missing.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> checks.compare_gradients({"w": jnp.ones(2)}, {"w": 1.5 * jnp.ones(2)}, {"['w']": "exact"}).ok
    False
    """
    found, structure = jax.tree_util.tree_flatten_with_path(online)
    if jax.tree.structure(reference) != structure:
        raise UsageError(
            problem(
                "The gradients have different structures.",
                got=jax.tree.structure(reference),
                expected=structure,
            )
        )
    rows, widest = [], 0.0
    for (key, a), b in zip(found, jax.tree.leaves(reference), strict=True):
        path = jax.tree_util.keystr(key) or "value"
        if path not in certificates:
            raise UsageError(
                problem(
                    f"No certificate for {path}.",
                    got=list(certificates),
                    expected="one for each parameter",
                )
            )
        widest = max(widest, tolerance_of(a.dtype))
        cosine, error, norm, reference_norm = measure(a, b)
        count = (dropped or {}).get(path, 0)
        rows.append(
            GradientRow(
                path, a.shape, certificates[path], cosine, error, norm, reference_norm, count
            )
        )
    return GradientReport(tuple(rows), widest if tolerance is None else tolerance, title)


def measure(a: Any, b: Any) -> tuple[float, float, float, float]:
    """(cosine, relative error, norm of a, norm of b)."""
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = np.asarray(a).astype(wide).reshape(-1), np.asarray(b).astype(wide).reshape(-1)
    na, nb, off = (float(np.linalg.norm(v)) for v in (a, b, a - b))
    if not np.isfinite([na, nb]).all():
        return float("nan"), float("nan"), na, nb
    if na == 0 or nb == 0:
        same = na == nb
        return float(same), 0.0 if same else float("inf") if nb == 0 else 1.0, na, nb
    return float(np.vdot(a, b).real / (na * nb)), off / nb, na, nb


def tolerance_of(dtype: Any) -> float:
    """Relative error up to which gradients of a dtype count as equal."""
    bits = jax.numpy.finfo(dtype).bits
    return 1e-8 if bits >= 64 else 1e-3 if bits >= 32 else 5e-2
