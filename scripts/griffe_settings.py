"""For the reference: what mkdocstrings cannot know of the way in which mlopt is documented.

It reads the source without importing it, so a field declared as ``k: float = setting(1.0, "spring constant",
unit="eV")`` would stand there without a docstring. And lines such as ``energy (n,): of each problem`` in a docstring,
one below the other, would run together into one paragraph: they become a list.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_NAME = r"[a-z_]\w*(?: \([^)]*\))?(?: \w+)?"
_FIELD = re.compile(rf"{_NAME}(?:[,;] {_NAME})*: \S")


def as_list(text: str) -> str:
    """The text with paragraphs that describe fields, a line each, turned into lists."""
    paragraphs = text.split("\n\n")
    for index, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        if _FIELD.match(lines[0]):
            lines = [f"- {line}" if _FIELD.match(line) else f"  {line}" for line in lines]
            paragraphs[index] = "\n".join(lines)
    return "\n\n".join(paragraphs)


class Settings(griffe.Extension):
    """Turns ``setting(default, doc, unit=..., gt=...)`` into an attribute with value and docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and not obj.is_attribute:
            obj.docstring.value = as_list(obj.docstring.value)

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        call = getattr(node, "value", None)
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "setting"):
            return
        keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        doc = call.args[1] if len(call.args) > 1 else keywords.pop("doc", None)
        words = [ast.literal_eval(doc)] if isinstance(doc, ast.Constant) else []
        unit = keywords.pop("unit", None)
        if isinstance(unit, ast.Constant) and unit.value:
            words.append(f"Unit: {unit.value}.")
        signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
        limits = [f"{sign} {ast.unparse(keywords[name])}" for name, sign in signs.items() if name in keywords]
        if limits:
            words.append(f"Limits: {', '.join(limits)}.")
        if words:
            first, *rest = words
            text = first if first.endswith(".") or not rest else f"{first}."
            attr.docstring = griffe.Docstring(" ".join([text, *rest]), parent=attr)
        default = call.args[0] if call.args else None
        required = default is None or (isinstance(default, ast.Constant) and default.value is ...)
        attr.value = None if required else ast.unparse(default)
