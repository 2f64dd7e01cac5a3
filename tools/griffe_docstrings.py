"""An extension of griffe for the docs: formulas in docstrings become MathML, examples become
code.
"""

import re
import textwrap

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
