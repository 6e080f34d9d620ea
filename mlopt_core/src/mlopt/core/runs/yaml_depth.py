"""The depth of a YAML text, measured before a parser sees it.

Parsers limit nesting in their own ways and words, and some read a thousand characters ahead before they report
anything. This count needs no parser, so the refusal of endless nesting does not depend on one.
"""

from __future__ import annotations

import re

# What a line can begin with: any number of `- ` and `? `, each of which opens a level.
_INDICATORS = re.compile(r"(?:[-?][ \t]+)*")
# A value after a key, or at the start of the line, that is written in brackets.
_FLOW_START = re.compile(r"(?:^|[:?-][ \t]+)[ \t]*(?=[\[{])")
# Inside brackets: a quoted word, a comment, or a bracket. Nothing else opens or closes a level there.
_AT_START = r"(?:(?<=[\s,\[{])|(?<=[\"']:))"
_FLOW_TOKEN = re.compile(
    rf"{_AT_START}\"(?:\\.|[^\"\\])*\"|{_AT_START}'(?:''|[^'])*'|(?<=\s)\#[^\n]*|[\[{{]|[\]}}]", re.DOTALL
)
# `key: |` and `key: >`: the text below is a word, whatever it holds.
_BLOCK_SCALAR = re.compile(r"(?:^|[ \t])[|>][-+0-9]*[ \t]*(?:#.*)?$")


def too_deep(text: str, limit: int) -> int | None:
    """Return the line, from 1, at which ``text`` nests over ``limit`` levels in brackets or on one line, or None.

    Levels by indentation are left to the parser, which reports them line by line.
    """
    start, word_below = 0, None
    while start < len(text):
        newline = text.find("\n", start)
        stop = len(text) if newline < 0 else newline
        line = text[start:stop]
        begun = line.lstrip(" ")
        indent = len(line) - len(begun)
        if word_below is not None and (not begun.strip() or indent > word_below):
            start = stop + 1
            continue
        word_below = indent if _BLOCK_SCALAR.search(line) else None
        indicators = _INDICATORS.match(begun)
        if indicators is not None and len(indicators.group().split()) > limit:
            return text.count("\n", 0, start) + 1
        flow = None if word_below is not None or begun.startswith("#") else _FLOW_START.search(line)
        if flow is not None:
            end, deep = _brackets(text, start + flow.end(), limit)
            if deep:
                return text.count("\n", 0, end) + 1
            newline = text.find("\n", end)
            stop = len(text) if newline < 0 else newline
        start = stop + 1
    return None


def _brackets(text: str, start: int, limit: int) -> tuple[int, bool]:
    """Follow the bracket at ``start`` to its partner; return the end, and whether the nesting went too deep."""
    levels = 0
    for token in _FLOW_TOKEN.finditer(text, start):
        if token.group() in ("[", "{"):
            levels += 1
            if levels > limit:
                return token.start(), True
        elif token.group() in ("]", "}"):
            levels -= 1
            if levels == 0:
                return token.end(), False
    return len(text), False
