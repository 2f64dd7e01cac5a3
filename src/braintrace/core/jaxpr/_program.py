"""A program: one flat list of equations over variables. What every analysis and every evaluation
works on.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from .._compat import Params, Primitive, bind, is_differentiable


class Var:
    """A variable: an identity with a shape and a dtype."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: Sequence[int], dtype: np.dtype):
        self.shape = tuple(shape)
        self.dtype = dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def differentiable(self) -> bool:
        return is_differentiable(self.dtype)

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Const:
    """A value known when the program was staged."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.value))

    @property
    def dtype(self) -> np.dtype:
        return getattr(self.value, "dtype", None) or np.asarray(self.value).dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    differentiable = False


Atom = Var | Const


@dataclasses.dataclass(eq=False)
class Equation:
    """`outputs = primitive(*inputs, **params)`, with the user's source line."""

    primitive: Primitive
    inputs: list[Atom]
    outputs: list[Var]
    params: Params
    source: str = ""

    def bind(self, values: Sequence[jax.Array]) -> list[jax.Array]:
        return bind(self.primitive, values, self.params)

    def copy(self) -> "Equation":
        """The same equation with outputs of its own."""
        outputs = [Var(v.shape, v.dtype) for v in self.outputs]
        return Equation(self.primitive, list(self.inputs), outputs, self.params, self.source)

    @property
    def name(self) -> str:
        return self.params.get("name", None) or self.primitive.name


@dataclasses.dataclass(eq=False)
class Program:
    """Inputs, equations in order, outputs."""

    inputs: list[Var]
    equations: list[Equation]
    outputs: list[Atom]


def evaluate(equations: Sequence[Equation], env: dict[Var, jax.Array]) -> None:
    """Evaluate `equations` in order, reading and filling `env`."""
    read = reader(env)
    for equation in equations:
        results = equation.bind([read(v) for v in equation.inputs])
        env.update(zip(equation.outputs, results, strict=True))


def reader(env: dict[Var, jax.Array]) -> Callable[[Atom], jax.Array]:
    """A function that reads an atom's value from `env`."""
    return lambda atom: atom.value if isinstance(atom, Const) else env[atom]


def variables(atoms: Iterable[Atom]) -> list[Var]:
    """The variables among the atoms."""
    return [v for v in atoms if isinstance(v, Var)]


def makers(equations: Iterable[Equation]) -> dict[Atom, Equation]:
    """The equation that makes each variable."""
    return {v: e for e in equations for v in e.outputs}


def sort_equations(equations: Sequence[Equation]) -> list[Equation]:
    """The equations, each after those that it reads, otherwise in the order given."""
    maker = makers(equations)
    done: dict[Equation, None] = {}
    for first in equations:
        pending = [first]
        while pending:
            e = pending[-1]
            missing = [m for v in e.inputs if (m := maker.get(v)) and m not in done]
            if missing:
                pending += missing
            else:
                done[pending.pop()] = None
    return list(done)
