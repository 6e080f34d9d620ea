"""Writes the one module that is compiled: kernel functions with everything they call, in an order that works.

Names are made unique, annotations and documentation dropped, floating-point literals given the working precision (or
float32 times 2.0 would be float64), numbers at the top level of modules put in where they are used, and calls to
`mlopt.core.kernels.lanes`, ``math.exp``, ``math.log`` and ``math.isfinite`` left for the target to
define. In what is written ``settings`` is a pair: the numbers, and theta. Indices are made unsigned: kernels have
no negative ones.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any

from mlopt.core.errors import InputError
from mlopt.core.kernels import lanes
from mlopt.core.kernels.kernel import Kernel

#: what a target defines under the same name
_INTRINSIC = {
    getattr(lanes, name): name
    for name in ("lane", "lanes", "sync", "total", "highest", "uniform", "normal", "numbers_of")
}
_MATH = {
    "sqrt",
    "log1p",
    "sin",
    "cos",
    "floor",
    "ceil",
    "tan",
    "acos",
    "atan2",
    "pow",
    "tanh",
}
#: what a target has its own version of
_TARGET_MATH = {"exp", "log", "isfinite"}
_BUILTINS = {"range", "len", "abs", "min", "max", "int"}


class Writer:
    """Collects functions; `text` is the module so far."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._done: list[str] = []
        #: all that were added, in order: their settings share one array, and their theta another
        self.kernels: list[Kernel] = []

    @property
    def text(self) -> str:
        """What has been written."""
        return "\n\n".join(self._done) + "\n"

    def kernel(self, kernel: Kernel) -> str:
        """Write a kernel, whose settings are put behind those of the others; returns its name."""
        offset = sum(len(one.settings) for one in self.kernels)
        share = None
        if kernel.theta is not None:
            begin = sum(one.theta.shape[-1] for one in self.kernels if one.theta is not None)
            share = (begin, begin + kernel.theta.shape[-1])
        self.kernels.append(kernel)
        return self.function(kernel.function, kernel.parts, kernel.constants, offset, share)

    def function(
        self,
        function: Callable[..., Any],
        parts: Mapping[str, Any] | None = None,
        constants: Mapping[str, int] | None = None,
        offset: int = 0,
        share: tuple[int, int] | None = None,
    ) -> str:
        """Write a function and what it calls; returns its name in the module.

        parts, constants: what names stand for, in this function and in the others of its kernel that it calls.
        offset: where the settings of its kernel begin. share: where its theta begins and ends, if it has one.

        Raises:
            InputError: something that no kernel can contain, or a source that cannot be read.
        """
        if not isinstance(function, FunctionType):
            raise InputError(f"{function!r} is no plain Python function, which a kernel has to be")
        tree = _parse(function)
        tree = _Rewriter(self, function, dict(parts or {}), dict(constants or {}), offset, share).visit(tree)
        return self._add(function.__name__, tree)

    def chain(self, kernels: Sequence[Kernel], placeholder: FunctionType) -> str:
        """Write a function that calls each kernel in turn, with the arguments of ``placeholder``."""
        tree = _parse(placeholder)
        arguments = ", ".join(argument.arg for argument in tree.args.args)
        names = [self.kernel(one) for one in kernels]
        body = [f"    {name}({arguments})" for name in names] or ["    pass"]
        source = "\n".join([f"def chain({arguments}):", *body])
        tree = ast.parse(source).body[0]  # type: ignore[assignment]
        tree.decorator_list = [ast.Name("jit", ast.Load())]
        return self._add(placeholder.__name__, tree)

    def _add(self, name: str, tree: ast.FunctionDef) -> str:
        tree.name = "_"
        text = ast.unparse(ast.fix_missing_locations(tree))
        if text not in self._names:
            used = set(self._names.values())
            unique, count = f"{name}_0", 0
            while unique in used:
                count += 1
                unique = f"{name}_{count}"
            self._names[text] = unique
            self._done.append(text.replace("def _(", f"def {unique}(", 1))
        return self._names[text]


def _parse(function: FunctionType) -> ast.FunctionDef:
    try:
        source = _source(function)
    except (OSError, TypeError):
        raise InputError(
            f"the source of kernel function {function.__qualname__} cannot be read; kernels must stand in a file"
        ) from None
    try:
        tree = ast.parse(source).body[0]
    except SyntaxError:  # a lambda: its source is the piece of a line
        tree = ast.Pass()
    if not isinstance(tree, ast.FunctionDef):
        raise InputError(f"{function.__qualname__} is no plain function, which a kernel has to be")
    return tree


@lru_cache(maxsize=1024)
def _source(function: FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function))


class _Rewriter(ast.NodeTransformer):
    """Puts what names stand for into one function."""

    def __init__(
        self,
        writer: Writer,
        function: FunctionType,
        parts: dict[str, Any],
        constants: dict[str, int],
        offset: int,
        share: tuple[int, int] | None,
    ) -> None:
        self.writer, self.function, self.offset, self.share = writer, function, offset, share
        self.parts, self.constants = parts, constants
        self.local = set(function.__code__.co_varnames)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [ast.Name("view" if _returns_view(node) else "jit", ast.Load())]
        node.returns = None
        for argument in [*node.args.args, *([node.args.vararg] if node.args.vararg else [])]:
            argument.annotation = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return _number(node.value) if isinstance(node.value, float) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))  # type: ignore[no-any-return]

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.slice, ast.UnaryOp) and isinstance(node.slice.op, ast.USub):
            raise self._error(f"`{ast.unparse(node)}`: there are no negative indices in a kernel")
        if isinstance(node.value, ast.Name) and node.value.id == "settings":
            if not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)):
                raise self._error("`settings` must be indexed by plain integers")
            node.slice = ast.Constant(node.slice.value + self.offset)
            node.value = ast.parse("settings[0]", mode="eval").body
        elif not isinstance(node.slice, ast.Slice | ast.Constant | ast.Tuple):
            # a signed index is compared with 0 each time, and the loop around it then not vectorised
            node.slice = ast.Call(ast.Name("unsigned", ast.Load()), [node.slice], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in self.local and self._global(name) is lanes.theta_of:
            if self.share is None:
                raise self._error("`theta_of`: its kernel has no theta")
            begin, end = self.share
            return ast.parse(f"settings[1][{begin}:{end}]", mode="eval").body
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not (isinstance(node.value, ast.Name) and self._global(node.value.id) is math):
            raise self._error(f"`{ast.unparse(node)}`: only functions of `math` have a dot in a kernel")
        if node.attr in _TARGET_MATH:
            return ast.Name(node.attr, ast.Load())
        if node.attr in _MATH:
            return node
        value = getattr(math, node.attr, None)
        if not isinstance(value, float):
            raise self._error(
                f"`math.{node.attr}` is not known to kernels; they know {', '.join(sorted(_MATH | _TARGET_MATH))}"
            )
        return _number(value)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.local:
            return node
        if node.id in self.constants:
            return ast.Constant(int(self.constants[node.id]))
        if node.id in self.parts:
            return ast.Name(self._part(self.parts[node.id], node.id), ast.Load())
        if node.id in _BUILTINS:
            return node
        if node.id == "float":
            return ast.Name("real", ast.Load())
        value = self._global(node.id)
        if isinstance(value, bool | int):
            return ast.Constant(int(value))
        if isinstance(value, float):
            return _number(value)
        if isinstance(value, FunctionType):
            if value in _INTRINSIC:
                return ast.Name(_INTRINSIC[value], ast.Load())
            name = self.writer.function(value, self.parts, self.constants, self.offset, self.share)
            return ast.Name(name, ast.Load())
        raise self._error(f"`{node.id}` is neither a number nor a plain function")

    def _part(self, part: Any, name: str) -> str:
        if isinstance(part, Kernel):
            return self.writer.kernel(part)
        if isinstance(part, Sequence):
            return self.writer.chain(part, self.function.__globals__[name])
        return self.writer.function(part)

    def _global(self, name: str) -> Any:
        return self.function.__globals__.get(name)

    def _error(self, message: str) -> InputError:
        return InputError(
            f"kernel function {self.function.__module__}.{self.function.__qualname__}: {message}"
        )


def _returns_view(node: ast.FunctionDef) -> bool:
    """Whether a function returns a part of an array, for which targets have another decorator."""
    found = (one.value for one in ast.walk(node) if isinstance(one, ast.Return))
    return any(isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) for value in found)


def _number(value: float) -> ast.expr:
    """A literal of the working precision."""
    if math.isnan(value):
        return ast.parse("real(np.nan)", mode="eval").body
    if math.isinf(value):
        return ast.parse("real(inf)" if value > 0 else "-real(inf)", mode="eval").body
    return ast.parse(f"real({value!r})", mode="eval").body
