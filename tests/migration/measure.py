"""The gradients of the rows where this package, or the PyPI package, is installed."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

from .gradients import ROWS
from .minimal import distance
from .statements import STATEMENTS


def lines(example):
    """For each parameter: the gradient over the right one, and how far it is from both."""
    if not hasattr(braintrace, example.algorithm):
        return [f"{example.name:16} no {example.algorithm} here"]
    dtype = jnp.float32 if example.algorithm == "OTPE" else None
    given = example.given(dtype)
    try:
        found = example.found(given)
    except Exception as error:
        return [f"{example.name:16} {first_line(error)}"]
    right = jax.jit(example.right)(given)
    other = example.other and jax.jit(example.other)(given)
    table = []
    for name in example.names:
        part = np.vdot(found[name], right[name]) / np.vdot(right[name], right[name])
        text = f"{example.name:16} {name:3} {part:8.4f} {distance(found[name], right[name]):9.1e}"
        table.append(text + (f" {distance(found[name], other[name]):9.1e}" if other else ""))
    return table


def main():
    print(f"braintrace {braintrace.__version__}")
    print(f"{'model':16} {'':3} {'/ right':>8} {'off right':>9} {'off page':>9}")
    for row, examples in ROWS.items():
        print(f"\n{row}")
        for example in examples:
            bits = 32 if example.algorithm == "OTPE" else 64
            brainstate.environ.set(precision=bits)
            jax.config.update("jax_enable_x64", bits == 64)
            print(*lines(example), sep="\n")
    for row, statements in STATEMENTS.items():
        print(f"\n{row}")
        for statement in statements:
            try:
                print(statement())
            except Exception as error:
                print(first_line(error))


def first_line(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0][:70]}"


if __name__ == "__main__":
    main()
