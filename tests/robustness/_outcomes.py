"""A bad call, and what becomes of it."""

import dataclasses
import enum
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import braintrace


class Outcome(enum.StrEnum):
    """`CLEAR`: an error of braintrace's that says what was got, and what was expected or what to
    do. `RIGHT`: accepted, with the right value. `REFUSED`: a clear error of Python's, JAX's or the
    framework's own, or the user's own exception, for the reason that the case gives. The others are
    faults: another error (`RAW`), another value or a change of state (`WRONG`).
    """

    CLEAR = "clear"
    RIGHT = "right"
    REFUSED = "refused"
    RAW = "raw"
    WRONG = "wrong"


@dataclasses.dataclass(frozen=True)
class Case:
    """`call()` with the bad value. `watched()` gives the arrays that it must leave as they are.

    `begin()` comes first.

    `right`: what a call that is accepted must return.
    """

    name: str
    call: Callable[[], Any]
    watched: Callable[[], Any] = lambda: ()
    begin: Callable[[], None] = lambda: None
    right: Callable[[Any], bool] | None = None
    refuses: "Refusal | None" = None

    @property
    def subject(self) -> str:
        """What is called."""
        return self.name.partition(", ")[0]

    @property
    def expected(self) -> Outcome:
        if self.right is not None:
            return Outcome.RIGHT
        return Outcome.CLEAR if self.refuses is None else Outcome.REFUSED

    def run(self) -> tuple[Outcome, str]:
        """The outcome, and the error's text (or what is wrong)."""
        self.begin()
        before = _frozen(self.watched())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "A new function at each call")  # the tables' losses
            outcome, text = self._called()
        changed = self.right is None and not _same(before, _frozen(self.watched()))
        return (Outcome.WRONG, f"state has changed; {text}") if changed else (outcome, text)

    def _is_refused(self, error: Exception) -> bool:
        return self.refuses is not None and self.refuses.covers(error)

    def _called(self) -> tuple[Outcome, str]:
        try:
            got = self.call()
        except braintrace.BrainTraceError as error:
            text = str(error)
            whole = "  got: " in text and ("  expected: " in text or "  do: " in text)
            return (Outcome.CLEAR if whole else Outcome.RAW), text
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return (Outcome.REFUSED if self._is_refused(error) else Outcome.RAW), text
        if self.right is not None and self.right(got):
            return Outcome.RIGHT, ""
        return Outcome.WRONG, "accepted"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A clear error that is not of braintrace: its type, a piece of its text, why it is not ours,
    and the function of the user's (by name) that it comes from, where that is the reason.
    """

    error: type[Exception]
    piece: str
    why: str
    within: str = ""

    def covers(self, error: Exception) -> bool:
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        text = f"{type(error).__name__}: {error}"
        told = isinstance(error, self.error) and self.piece in text
        return told and (not self.within or self.within in frames)


def _frozen(tree: Any) -> list[np.ndarray]:
    return [np.array(v) for v in jax.tree.leaves(tree)]


def _same(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(_equal(a, b) for a, b in pairs)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
