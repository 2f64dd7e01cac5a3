"""The work that every side does: the same cell, sizes, weights, inputs and loss.

The cells are read from their file and not from the installed package, because in a peer's
environment the name `braintrace` is the peer's.
"""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

INPUTS, OUTPUTS = 64, 16
_CELLS = Path(__file__).parents[1] / "src" / "braintrace" / "_compare" / "_cells.py"


@dataclasses.dataclass(frozen=True)
class Case:
    """A cell at one size: N neurons a layer, B samples, T steps."""

    cell: str
    neurons: int
    samples: int
    steps: int = 128

    @property
    def title(self) -> str:
        return f"{self.cell}, N={self.neurons}, B={self.samples}, T={self.steps:,}"


@dataclasses.dataclass(frozen=True)
class Program:
    """A gradient of one sequence: `function(fixed, state, xs, ys) -> (gradients, state)`, and what
    it is called with.

    Attributes:
        fixed: arguments that a call leaves alone.
        state: what a call consumes and gives back, donated; () where there is nothing to go on
            with.
        traces: bytes of the eligibility traces among the arguments.
        names: from the gradients to an array for each parameter, by name.
        compiled: whether `function` is put under `jax.jit`; an eager one is called as it is.
    """

    function: Any
    fixed: Any
    state: Any
    xs: Any
    ys: Any
    traces: int = 0
    names: Any = dict
    compiled: bool = True


def model_of(case: Case) -> Any:
    """The cell with its weights and first carry."""
    name = "benchmarks_cells"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _CELLS)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name].CELLS[case.cell](INPUTS, case.neurons, OUTPUTS, case.samples)


def data_of(case: Case, steps: int, inputs: int = INPUTS) -> tuple[Any, Any]:
    """Inputs and targets, time first."""
    random = np.random.default_rng(1)
    xs, ys = (random.normal(size=(steps, case.samples, n)) for n in (inputs, OUTPUTS))
    return jnp.asarray(xs, jnp.float32), jnp.asarray(ys, jnp.float32)


def loss(out: Any, target: Any) -> Any:
    """Of one step; a sequence's is the sum over its steps."""
    return jnp.mean((out - target) ** 2)


def size_of(tree: Any) -> int:
    """Bytes of the arrays of a tree."""
    return sum(
        int(np.size(v)) * np.dtype(jnp.result_type(v)).itemsize for v in jax.tree.leaves(tree)
    )


def products_of(case: Case) -> float:
    """Floating-point operations of the weight products that a gradient cannot do without, per step:
    6 B Σ I·O.
    """
    weights = [w.shape for w in model_of(case).params.values() if w.ndim == 2]
    return 6.0 * case.samples * sum(a * b for a, b in weights)
