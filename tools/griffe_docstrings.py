"""An extension of griffe for the docs: formulas in docstrings become MathML, examples become code,
and the classes of learners that are made of rules get the docstrings and signatures of these.
"""

import importlib
import inspect
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^([ ]*)\.\. math::\n\n((?:\1[ ]+\S.*\n|\n)+)", re.MULTILINE)
EXAMPLE = re.compile(r"^([ ]*)>>> (?:.*\n)+?(?=\s*\n|\Z)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")


def rewritten(text: str) -> str:
    """`text` with its `.. math::` blocks and `:math:` roles as MathML, and its `>>>` examples as
    blocks of code.
    """

    def block(found: re.Match[str]) -> str:
        formula = " ".join(textwrap.dedent(found[2]).split())
        return f"{found[1]}{convert(formula, display='block')}\n\n"

    text = EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}{found[1]}```\n", text + "\n")
    return INLINE.sub(lambda found: convert(found[1]), BLOCK.sub(block, text))


class Docstrings(griffe.Extension):
    """Rewrites docstrings as they are collected."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, agent: Any, **kwargs: object) -> None:
        if not cls.path.startswith("braintrace.frontends.brainstate._algorithms."):
            return
        made = getattr(importlib.import_module("braintrace"), cls.name)
        text = rewritten(inspect.getdoc(made) or "")
        cls.docstring = griffe.Docstring(
            text, parent=cls, parser=agent.docstring_parser, parser_options=agent.docstring_options
        )
        parameters = [
            griffe.Parameter(
                p.name,
                annotation=inspect.formatannotation(p.annotation).removeprefix("typing.")
                if p.annotation is not p.empty
                else None,
                kind=griffe.ParameterKind[p.kind.name.lower()],
                default=None if p.default is p.empty else repr(p.default),
            )
            for p in inspect.signature(made.__init__).parameters.values()
        ]
        function = griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
        cls.set_member("__init__", function)
