"""The errors that braintrace raises: each says what was got, what was expected and what to do."""

from typing import Any


class BrainTraceError(Exception):
    """Base of all errors of this library.

    >>> import braintrace
    >>> issubclass(braintrace.CompilationError, braintrace.BrainTraceError)
    True
    """

    def __init__(self, what: str, **said: Any):
        """`said`: got, expected, do, at, as for `problem`."""
        super().__init__(problem(what, **said))


class CompilationError(BrainTraceError):
    """A model cannot be compiled into a learner.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> try:
    ...     braintrace.compile(brainstate.nn.Linear(2, 3), "d_rtrl", jnp.zeros(2))
    ... except braintrace.CompilationError as error:
    ...     print(str(error).splitlines()[0])
    The model has no hidden state.
    """


class NotSupportedError(CompilationError):
    """A model uses something that no rule of the library covers; the message names the user's line.

    >>> import braintrace
    >>> issubclass(braintrace.NotSupportedError, braintrace.CompilationError)
    True
    """


class UsageError(BrainTraceError, ValueError):
    """A learner is used against its contract (wrong argument, wrong order of calls, wrong shape or
    dtype).

    >>> import braintrace
    >>> try:
    ...     braintrace.compile(lambda p, h, x: (h, x), "d_rtl", 0.0)
    ... except braintrace.UsageError as error:
    ...     print(str(error).splitlines()[0])
    Unknown algorithm.
    """


def problem(
    what: str, *, got: object = None, expected: object = None, do: str = "", at: str = ""
) -> str:
    """One message in the library's form: what went wrong, then got / expected / do / at, each on
    its line.
    """
    said = {"got": got, "expected": expected, "do": do or None, "at": at or None}
    lines = [f"  {name + ':':9} {value}" for name, value in said.items() if value is not None]
    return "\n".join([what, *lines])


def first_line(error: BaseException) -> str:
    """An error of other code in one line: its kind, and the first line of what it says."""
    said = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *said[:1]])
