"""What is made for functions of the user's, and how long it is kept."""

import functools
import sys
import types
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..core._errors import problem

Made = TypeVar("Made")

_MOST = 32
_A_FEW = 5
_PACKAGE = str(Path(__file__).parents[1])


class UserFunction:
    """A function of the user's: held weakly if it may be made anew for each call (a lambda, a
    method, a partial), so that what is compiled for it can go when nobody else holds it.
    """

    def __init__(self, function: Callable[..., Any]):
        self._get: Callable[[], Any] = lambda: function
        self._key: Hashable = function
        if isinstance(function, types.MethodType):
            try:
                self._get = weakref.WeakMethod(function)
            except TypeError:  # of an object without weak references
                return
            self._key = id(function.__self__), function.__func__
        elif isinstance(function, (types.FunctionType, functools.partial)):
            self._get, self._key = weakref.ref(function), id(function)

    def __call__(self) -> Any:
        """The function; None when it is gone."""
        return self._get()

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, UserFunction) or self._key != other._key:
            return False
        return self() is not None and other() is not None

    @property
    def code(self) -> types.CodeType | None:
        """Where it is written."""
        function: Any = self()
        while isinstance(function, functools.partial):
            function = function.func
        return getattr(function, "__code__", None)


class Kept(Generic[Made]):
    """`make(function, *key)` for functions of the user's: the ones used last, while their function
    lives. Warns when functions from one line come anew again and again.
    """

    def __init__(self, make: Callable[..., Made]):
        self._make = make
        self._made: OrderedDict[tuple[Any, ...], Made] = OrderedDict()
        self._came: Counter[types.CodeType] = Counter()

    def of(self, function: UserFunction, *key: Hashable, counts: bool = True) -> Made:
        """What belongs to `function` and `key`; whether it `counts` as compiled anew."""
        for gone in [k for k in self._made if k[0]() is None]:
            del self._made[gone]
        whole = (function, *key)
        if whole not in self._made:
            anew = counts and all(function != known for known, *_ in self._made)
            self._made[whole] = self._make(function(), *key)
            if anew:
                self._count(function.code)
            if len(self._made) > _MOST:
                self._made.popitem(last=False)
        self._made.move_to_end(whole)
        return self._made[whole]

    def clear(self) -> None:
        """Forget all."""
        self._made.clear()

    def __len__(self) -> int:
        return len(self._made)

    def _count(self, code: types.CodeType | None) -> None:
        if code is None:
            return
        self._came[code] += 1
        if self._came[code] == _A_FEW:
            message = problem(
                "A new function at each call is compiled at each call.",
                got=f"{_A_FEW} functions of one line",
                expected="one function for all calls",
                do="define it once, outside of the loop, and pass what changes from call to call "
                "as a further sequence",
                at=f"{code.co_filename}:{code.co_firstlineno} ({code.co_name})",
            )
            warnings.warn(message, UserWarning, stacklevel=_to_the_user())


def _to_the_user() -> int:
    """The `stacklevel`, for the caller, of the first frame outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
