"""The errors that braintrace raises: each says what was got, what was expected and what to do."""


class BrainTraceError(Exception):
    """Base of all errors of this library."""


class CompilationError(BrainTraceError):
    """A model cannot be compiled into a learner."""


class NotSupportedError(CompilationError):
    """A model uses something that no rule of the library covers; the message names the user's line."""


class UsageError(BrainTraceError, ValueError):
    """A learner is used against its contract (wrong argument, wrong order of calls, wrong shape or dtype)."""


def problem(what: str, *, got: object = None, expected: object = None, do: str = "", at: str = "") -> str:
    """One message in the library's form: what went wrong, then got / expected / do / at, each on its line."""
    parts = [what]
    if got is not None:
        parts.append(f"  got:      {got}")
    if expected is not None:
        parts.append(f"  expected: {expected}")
    if do:
        parts.append(f"  do:       {do}")
    if at:
        parts.append(f"  at:       {at}")
    return "\n".join(parts)
