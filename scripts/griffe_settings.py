"""For the reference: a plugin's settings get their documentation and default from `setting(...)`.

mkdocstrings reads the source without importing it, so a field declared as ``k: float = setting(1.0, "spring constant",
unit="eV")`` would stand there without a docstring.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe


class Settings(griffe.Extension):
    """Turns ``setting(default, doc, unit=..., gt=...)`` into an attribute with value and docstring."""

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
