"""Is every public name on a page of the reference? A hook of `make docs`, and a test."""

import importlib
import importlib.util
import re
import types
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = (
    "braintrace",
    "braintrace.checks",
    "braintrace.rules",
    "braintrace.tasks",
    "braintrace.nn",
)
ENTRY = re.compile(r"^::: ([\w.]+)", re.MULTILINE)


def public_names(module: str) -> dict[str, Any]:
    """The public names of a module with their objects; of names that another package owns
    (brainstate's layers) none.
    """
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [n for n in vars(found) if not n.startswith("_")])
    objects = {n: getattr(found, n) for n in names} | (
        _served_when_asked() if module == "braintrace" else {}
    )
    return {n: v for n, v in objects.items() if not isinstance(v, types.ModuleType) and _own(v)}


def _served_when_asked() -> dict[str, Any]:
    """The names that `braintrace` imports when they are asked for: front ends whose framework is
    there, and names of 0.1.
    """
    package, old = (
        importlib.import_module("braintrace"),
        importlib.import_module("braintrace.compat._instead"),
    )
    front_ends = {n: framework for n, (_, framework, _) in package._OPTIONAL.items()}
    names = [
        *(n for n, framework in front_ends.items() if importlib.util.find_spec(framework)),
        *old.INSTEAD,
    ]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return {n: getattr(package, n) for n in names}


def _own(value: Any) -> bool:
    return getattr(value, "__module__", "braintrace").partition(".")[0] == "braintrace"


def available() -> list[str]:
    """The modules of the library that exist."""
    return [m for m in MODULES if importlib.util.find_spec(m) is not None]


def documented() -> list[str]:
    """The names that the pages of the reference show."""
    return [
        name
        for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
        for name in ENTRY.findall(page.read_text())
    ]


def missing() -> list[str]:
    """The public names without an entry."""
    shown = set(documented())
    return [f"{m}.{n}" for m in available() for n in public_names(m) if f"{m}.{n}" not in shown]


def on_pre_build(config: Any) -> None:
    """Called by MkDocs."""
    from mkdocs.exceptions import PluginError

    if lost := missing():
        raise PluginError(f"Public names without an entry in docs/reference: {', '.join(lost)}")
