"""The public API as it is written down in `public_api.txt`: names, signatures and public methods.

`python tests/test_public_api.py` writes the file anew; the difference belongs into the change log.
"""

import ast
import difflib
import enum
import functools
import importlib
import inspect
import warnings
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = (
    "braintrace",
    "braintrace.checks",
    "braintrace.nn",
    "braintrace.rules",
    "braintrace.tasks",
)


def listed(module):
    """The names that a package's `__init__` gives out: `from ... import X as X`."""
    tree = ast.parse(Path(module.__file__).read_text())
    aliases = (a for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names)
    return sorted(
        {a.name for a in aliases if a.asname == a.name} | {*getattr(module, "__all__", ())}
    )


def default_of(parameter):
    """A default, in words that do not depend on addresses or versions."""
    value = parameter.default
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    if isinstance(value, tuple | list | dict | set | frozenset):
        return repr(value) if " at 0x" not in repr(value) else type(value).__name__
    return getattr(value, "__name__", type(value).__name__)


def signature_of(value):
    """Names, kinds and defaults of the arguments; annotations are left to the type checker."""
    parameters = list(inspect.signature(value).parameters.values())
    words, keyword_only = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not keyword_only:
            words += [] if any(q.kind is q.VAR_POSITIONAL for q in parameters) else ["*"]
            keyword_only = True
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        words.append(star + p.name + ("" if p.default is p.empty else f"={default_of(p)}"))
    return f"({', '.join(words)})"


def members_of(cls):
    """Lines for what a class says in public, wherever in this library it is defined."""
    if issubclass(cls, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in cls)
        return
    found = {}
    for base in reversed(cls.__mro__):
        if is_ours(base):
            found |= vars(base)
    for name in sorted(found):
        if name.startswith("_") and name != "__call__":
            continue
        value = found[name]
        if isinstance(value, property | functools.cached_property):
            yield f"{name}: property"
        elif isinstance(value, classmethod | staticmethod):
            yield f"{name}{signature_of(getattr(cls, name))}"
        elif inspect.isfunction(value):
            yield f"{name}{signature_of(value)}".replace("(self, ", "(").replace("(self)", "()")


def constructor_of(cls):
    """How an instance is made; errors and enumerations are made as Python's are."""
    if issubclass(cls, Exception | enum.Enum):
        return ""
    made_here = is_ours(next((b for b in cls.__mro__ if "__init__" in vars(b)), object))
    signature = signature_of(cls.__init__ if made_here else cls)
    return signature.replace("(self, ", "(").replace("(self)", "()")


def is_ours(value):
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "braintrace"


def described(path, value):
    """Lines for one name; of what another library defines, the name alone."""
    if inspect.ismodule(value):
        return [f"{path}: module"]
    if not is_ours(value):
        return [f"{path}: {value.__module__.partition('.')[0]}"]
    if inspect.isclass(value):
        return [f"{path}{constructor_of(value)}", *(f"    {line}" for line in members_of(value))]
    if callable(value):
        return [f"{path}{signature_of(value)}"]
    return [f"{path}: {type(value).__name__}"]


def public_api():
    """The whole of it, a name a line, sorted."""
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of earlier releases warn
        for path in MODULES:
            module = importlib.import_module(path)
            for name in listed(module):
                lines += described(f"{path}.{name}", getattr(module, name))
    return lines


def differences(before, now):
    """What went and what came, by line, under the class or function that it belongs to."""
    diff = difflib.unified_diff(before, now, "written down", "found", lineterm="", n=1)
    return [line for line in diff if not line.startswith("@@")]


def test_public_api():
    found = differences(SNAPSHOT.read_text().splitlines(), public_api())
    assert not found, "\n".join(
        ["The public API has changed. If it is meant: python tests/test_public_api.py", *found]
    )


def test_differences_are_seen():
    """Control: another default, a name that goes, a name that comes."""
    before = public_api()
    changed = [line.replace("verbose=0", "verbose=1") for line in before]
    assert any("verbose=1" in line for line in differences(before, changed))
    assert differences(before, before[1:]) and differences(before, [*before, "braintrace.new()"])


def test_nothing_in_it_depends_on_a_process():
    assert all(listed(importlib.import_module(path)) for path in MODULES)
    assert not [line for line in public_api() if " at 0x" in line or "<" in line]


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(public_api()) + "\n")
