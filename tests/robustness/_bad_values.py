"""Bad values for the arguments of drivers, by the kind of argument. `Right` and `Refused` stand for
values that are no fault.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._front_ends import LEFT_OUT, B, I, N, O, T, X, Y, squared_error
from ._outcomes import Refusal


@dataclasses.dataclass(frozen=True)
class Right:
    """A value that is accepted: the same as `like`, or as leaving the argument out."""

    value: Any
    like: Any = LEFT_OUT


@dataclasses.dataclass(frozen=True)
class Refused:
    """A value that another library, Python or the user's own code refuses."""

    value: Any
    refusal: Refusal


def in_step(value: Any) -> Refused:
    """A value that the user's own step cannot take: JAX's error names the user's line."""
    why = "JAX's error of an operation in the user's step, with its line"
    return Refused(value, Refusal(Exception, "", why, within="cell"))


class _OwnError(Exception):
    pass


def _raises(out, *_):
    raise _OwnError("of the user")


def _of_dtype(dtype: Any) -> Callable[..., Any]:
    return lambda out, y: squared_error(out, y).astype(dtype)


#: Not the loss of a step: neither () nor one floating-point value for each sample.
LOSSES = {
    "integer": _of_dtype(int),
    "boolean": lambda out, y: (out > y).all(-1),
    "complex": _of_dtype(complex),
    "two axes": lambda out, y: (out - y) ** 2,
    "over the samples": lambda out, y: ((out - y) ** 2).mean(0),
    "kept axis": lambda out, y: ((out - y) ** 2).mean(-1, keepdims=True),
    "one value": lambda out, y: squared_error(out, y).mean()[None],
    "more values": lambda out, y: jnp.concatenate([squared_error(out, y)] * 2),
    "None": lambda out, y: None,
    "string": lambda out, y: "loss",
    "function": lambda out, y: squared_error,
    "pair": lambda out, y: (squared_error(out, y), out),
    "dict": lambda out, y: {"loss": squared_error(out, y)},
    "key": lambda out, y: jax.random.key(0),
    "not a function": "mse",
    "a number": 1.0,
    "one argument": lambda out: out.mean(-1),
    "three arguments": lambda out, y, z: out.mean(-1),
    "raises": Refused(_raises, Refusal(_OwnError, "of the user", "the user's own", "_raises")),
}

_ONES = np.ones((T, B))


def _with(value: Any, dtype: Any = np.float32) -> np.ndarray:
    mask = np.ones((T, B), dtype)
    mask[2, 1] = value
    return mask


MASKS = {
    "complex": jnp.ones((T, B), complex),
    "NaN": _with(np.nan),
    "infinite": _with(np.inf),
    "negative": _with(-1.0),
    "of steps": jnp.ones(T),
    "of samples": jnp.ones(B),
    "scalar": 1.0,
    "longer": jnp.ones((T + 1, B)),
    "transposed": jnp.ones((B, T)),
    "three axes": jnp.ones((T, B, 1)),
    "string": "mask",
    "strings": np.full((T, B), "x"),
    "objects": np.full((T, B), None),
    "ragged": [[1.0, 1.0], [1.0]],
    "keys": jax.random.split(jax.random.key(0), (T, B)),
    "a function": lambda t: 1.0,
    "whole numbers": Right(_with(0, int), _with(0.0)),
    "booleans": Right(_with(0, bool), _with(0.0)),
    "of lists": Right(_with(0.0).tolist(), _with(0.0)),
    "None": Right(None),
}

RESETS = {
    "fraction": jnp.full((T, B), 0.3),
    "floats": jnp.zeros((T, B)),
    "two": _with(2, int),
    "negative": _with(-1, int),
    "complex": jnp.ones((T, B), complex),
    "of steps": jnp.zeros(T, bool),
    "of samples": jnp.zeros(B, bool),
    "scalar": True,
    "longer": jnp.zeros((T + 1, B), bool),
    "transposed": jnp.zeros((B, T), bool),
    "string": "reset",
    "objects": np.full((T, B), None),
    "ragged": [[True], [True, False]],
    "whole numbers": Right(_with(0, int), _with(0, bool)),
    "None": Right(None),
}

WINDOWS = {
    "zero": 0,
    "negative": -1,
    "fraction": 1.5,
    "float": 2.0,
    "string": "3",
    "boolean": True,
    "array": jnp.ones(2, int),
    "list": [3],
    "of NumPy": Right(np.int64(3), 3),
    "more than the steps": Right(T + 9, T),
    "None": Right(None),
}

FLAGS = {"string": "yes", "one": 1, "None": None, "array": jnp.ones(2, bool), "float": 0.0}
KEYS = {
    "fraction": 1.5,
    "string": "x",
    "boolean": True,
    "list": [1],
    "floats": jnp.ones(2),
    "several": jax.random.split(jax.random.key(0)),
}

REDUCTIONS = {
    "none": "none",
    "None": None,
    "capitals": "MEAN",
    "number": 1,
    "boolean": True,
    "list": ["mean"],
    "array": jnp.ones(2),
    "a function": jnp.mean,
}

MODES = {
    "unknown": "B",
    "every step": Right(1, "O"),
    "longer than the sequence": 7,
    "zero": 0,
    "false": False,
    "list": ["A"],
    "array": jnp.ones(2),
    "None": Right(None, "A"),
}

TARGETS = {
    "longer": jnp.zeros((T + 1, B, O)),
    "shorter": Y[:-1],
    "no steps": Y[:0],
    "scalar": 1.0,
    "None": None,
    "string": "targets",
    "strings": np.full((T, B), "x"),
    "objects": np.full((T, B, O), None),
    "ragged": [[1.0], [1.0, 2.0]] * 2 + [[1.0]],
    "a function": squared_error,
    "shapes alone": jax.ShapeDtypeStruct((T, B, O), jnp.float32),
}

_COUNTS = np.arange(T * B * I).reshape(T, B, I) % 3
INPUTS = {
    "whole numbers": Right(_COUNTS, _COUNTS.astype(np.float32)),
    "bytes": Right(_COUNTS.astype(np.uint8), _COUNTS.astype(np.float32)),
    "booleans": Right(_COUNTS > 0, (_COUNTS > 0).astype(np.float32)),
    "of 64 bits": Right(_COUNTS.astype(float), _COUNTS.astype(np.float32)),
    "one step": X[0],
    "no steps": X[:0],
    "more features": jnp.ones((T, B, I + 1)),
    "more samples": jnp.ones((T, B + 1, I)),
    "no samples": X[:, :0],
    "no features": X[..., :0],
    "samples first": X.swapaxes(0, 1),
    "complex": X.astype(complex),
    "None": None,
    "scalar": 1.0,
    "string": "inputs",
    "strings": np.full((T, B, I), "x"),
    "objects": np.full((T, B, I), None),
    "ragged": [[[1.0]], [[1.0, 2.0]]],
    "a function": squared_error,
    "shapes alone": jax.ShapeDtypeStruct((T, B, I), jnp.float32),
    "dict": {"x": X},
    "keys": jax.random.split(jax.random.key(0), (T, B, I)),
}

#: Of one step.
STEP_INPUTS = {
    "whole numbers": Right(_COUNTS[0], _COUNTS[0].astype(np.float32)),
    "bytes": Right(_COUNTS[0].astype(np.uint8), _COUNTS[0].astype(np.float32)),
    "booleans": Right(_COUNTS[0] > 0, (_COUNTS[0] > 0).astype(np.float32)),
    "a sequence": X,
    "more features": jnp.ones((B, I + 1)),
    "more samples": jnp.ones((B + 1, I)),
    "one sample": X[0, 0],
    "no samples": X[0, :0],
    "complex": X[0].astype(complex),
    "None": None,
    "scalar": 1.0,
    "string": "input",
    "strings": np.full((B, I), "x"),
    "objects": np.full((B, I), None),
    "ragged": [[1.0], [1.0, 2.0]],
    "a function": squared_error,
    "shapes alone": jax.ShapeDtypeStruct((B, I), jnp.float32),
    "keys": jax.random.split(jax.random.key(0), (B, I)),
}

_Z = np.ones((T, B, O), np.float32)
#: For an algorithm that projects targets.
PROJECTED = {
    "None": None,
    "one step": jnp.ones((B, O)),
    "longer": jnp.ones((T + 1, B, O)),
    "more samples": jnp.ones((T, B + 1, O)),
    "more targets": jnp.ones((T, B, O + 1)),
    "no samples": jnp.ones((T, B, 0)),
    "scalar": 1.0,
    "flat": jnp.ones(T * B * O),
    "samples first": jnp.ones((B, T, O)),
    "complex": jnp.ones((T, B, O), complex),
    "NaN": np.where(np.arange(T)[:, None, None] == 2, np.nan, _Z),
    "infinite": np.where(np.arange(T)[:, None, None] == 2, np.inf, _Z),
    "string": "target",
    "objects": np.full((T, B, O), None),
    "whole numbers": Right(_Z.astype(int), _Z),
    "booleans": Right(_Z.astype(bool), _Z),
    "of lists": Right(_Z.tolist(), _Z),
}

_M = np.ones((T, B), np.float32)
#: For an algorithm that is modulated.
MODULATORS = {
    "None": None,
    "one step": jnp.ones(B),
    "longer": jnp.ones((T + 1, B)),
    "more samples": jnp.ones((T, B + 1)),
    "more neurons": jnp.ones((T, B, N + 1)),
    "one for each of two groups": (_M, _M),
    "none for any group": (),
    "scalar": 1.0,
    "samples first": jnp.ones((B, T)),
    "complex": jnp.ones((T, B), complex),
    "NaN": np.where(np.arange(T)[:, None] == 2, np.nan, _M),
    "string": "reward",
    "objects": np.full((T, B), None),
    "of NumPy": Right(_M, jnp.ones((T, B))),
    "by neuron": Right(np.ones((T, B, N)), jnp.ones((T, B))),
    "a list": Right([_M], jnp.ones((T, B))),
}

#: For an algorithm that does not take them.
NEEDLESS_TARGETS = {"array": _Z, "scalar": 1.0, "string": "target"}

LENGTHS = {
    "zero": 0,
    "negative": -1,
    "fraction": 2.5,
    "float": 2.0,
    "string": "5",
    "boolean": True,
    "None": None,
    "array": jnp.ones(2, int),
    "of NumPy": Right(np.int64(T), T),
}

CARRIES = {
    "more samples": jnp.zeros((B + 1, N)),
    "more neurons": jnp.zeros((B, N + 1)),
    "no samples": jnp.zeros((0, N)),
    "complex": jnp.zeros((B, N), complex),
    "whole numbers": jnp.zeros((B, N), int),
    "None": None,
    "pair": (jnp.zeros((B, N)),) * 2,
    "string": "carry",
    "objects": np.full((B, N), None),
    "shapes alone": jax.ShapeDtypeStruct((B, N), jnp.float32),
}

BATCH_SIZES = {"another": B + 1, "zero": 0, "fraction": 1.5, "string": "2", "boolean": True}
