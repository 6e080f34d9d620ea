"""The writer of the one module that is compiled: kernel functions with everything they call, in an order that works.

The text differs from the functions in these points:

- Names are unique. Annotations and documentation are dropped. Records are plain arguments, one for each field.
- Floating-point literals have the working precision, because float32 times 2.0 would be float64.
- Numbers at the top level of modules stand where they are used.
- The target defines the functions of `mlopt.core.kernels.lanes`, ``exp``, ``log`` and ``isfinite``.
- ``settings`` is a pair: the numbers, and theta.
- Indices are unsigned, because kernels have no negative ones.
"""

from __future__ import annotations

import ast
import dataclasses
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
from mlopt.optimizers.fused.arguments import fields_of, parameters_of, plain

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
    """A collection of functions. `text` is the module so far."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._done: list[str] = []
        #: all that were added, in order: their settings share one array, and their theta another
        self.kernels: list[Kernel] = []

    @property
    def text(self) -> str:
        """The text that has been written."""
        return "\n\n".join(self._done) + "\n"

    def kernel(self, kernel: Kernel) -> str:
        """Write a kernel, put its settings behind those of the others, and return its name."""
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
        """Write a function and the functions that it calls, and return its name in the module.

        parts, constants: meanings of names, in this function and in the others of its kernel that it calls.
        offset: place of its kernel's settings among all settings.
        share: beginning and end of its kernel's theta, if any.

        Raises:
            InputError: it contains something that no kernel can, or its source cannot be read.
        """
        if not isinstance(function, FunctionType):
            raise InputError(f"{function!r} is no plain Python function, which a kernel has to be")
        tree = _parse(function)
        tree = _Rewriter(self, function, dict(parts or {}), dict(constants or {}), offset, share).visit(tree)
        return self._add(function.__name__, tree)

    def chain(self, kernels: Sequence[Kernel], placeholder: FunctionType) -> str:
        """Write a function that calls each kernel in turn, with the arguments of ``placeholder``."""
        given = parameters_of(placeholder)
        arguments = ", ".join(name for one in given for name in plain(*one))
        body = [f"    {self.kernel(one)}({_handed_on(given, one.function)})" for one in kernels]
        (tree,) = ast.parse("\n".join([f"def chain({arguments}):", *(body or ["    pass"])])).body
        assert isinstance(tree, ast.FunctionDef)
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
    name = inspect.unwrap(function).__code__.co_name
    if name == "<lambda>":
        raise InputError(f"{function.__qualname__} is no plain function, which a kernel has to be")
    try:
        tree = ast.parse(_source(function)).body[0]
    except (OSError, TypeError, SyntaxError):
        tree = ast.Pass()
    # Python 3.13 takes the text of `python -c` for that of a function made by `exec`
    if not isinstance(tree, ast.FunctionDef) or tree.name != name:
        raise InputError(
            f"the source of kernel function {function.__qualname__} cannot be read; kernels must stand in a file"
        )
    return tree


def _handed_on(given: Sequence[tuple[str, Any]], function: Any) -> str:
    """Return the parameters ``given`` of one function as arguments of another."""
    names = []
    for (name, _), (_, fields) in zip(given, parameters_of(function), strict=True):
        names += plain(name, fields)
    return ", ".join(names)


@lru_cache(maxsize=1024)
def _source(function: FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function))


class _Rewriter(ast.NodeTransformer):
    """A rewriter of one function, which puts in what names stand for."""

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
        #: of each variable that holds a record: what its fields are
        self.records: dict[str, dict[str, ast.expr]] = {}
        #: variables that stand for fields: nothing else is put into them
        self.fixed: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [ast.Name("view" if _returns_view(node) else "jit", ast.Load())]
        node.returns = None
        arguments = []
        for name, fields in parameters_of(self.function):
            arguments += [ast.arg(one) for one in plain(name, fields)]
            if fields is not None:
                self.records[name] = {field: self._own(f"{name}_{field}") for field in fields}
        node.args.args = arguments
        if node.args.vararg is not None:
            node.args.vararg.annotation = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.body = self.generic_visit(ast.Module(node.body, [])).body  # type: ignore[attr-defined]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return _number(node.value) if isinstance(node.value, float) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))  # type: ignore[no-any-return]

    def visit_Assign(self, node: ast.Assign) -> Any:
        record = self._record(node.value)
        if record is None:
            return self.generic_visit(node)
        (target,) = node.targets
        if not isinstance(target, ast.Name) or target.id in self.records:
            raise self._error(f"`{ast.unparse(node)}`: give a record a name of its own")
        self.records[target.id] = dict(record)
        made = []
        for field, value in record.items():
            if not (isinstance(value, ast.Name) and value.id in self.fixed):
                name = self.records[target.id][field] = self._own(f"{target.id}_{field}")
                made.append(ast.Assign([ast.Name(name.id, ast.Store())], value))
        return [ast.copy_location(one, node) for one in made]

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
        called = self._called(name)
        wanted = [] if called is None else parameters_of(called)
        arguments: list[ast.expr] = []
        for place, argument in enumerate(node.args):
            fields = wanted[place][1] if place < len(wanted) else None
            record = self._record(argument)
            if record is None:
                if fields is not None:
                    raise self._error(
                        f"`{ast.unparse(node)}`: {name} asks for a record of {', '.join(fields)}"
                    )
                arguments.append(self.visit(argument))
                continue
            if fields is None:
                raise self._error(
                    f"`{ast.unparse(node)}`: {name} asks for no record; annotate its parameter, as in `s: Step`"
                )
            missing = [field for field in fields if field not in record]
            if missing:
                raise self._error(
                    f"`{ast.unparse(node)}`: {name} asks for `{missing[0]}`, and the record that it is given has "
                    f"{', '.join(record)}"
                )
            arguments += [record[field] for field in fields]
        node.func, node.args = self.visit(node.func), arguments
        node.keywords = [self.visit(one) for one in node.keywords]
        return node

    def _called(self, name: str) -> FunctionType | None:
        """Return the function that a call of ``name`` leads to, or its placeholder; None for no Python function."""
        part = self.parts.get(name)
        if isinstance(part, Kernel):
            part = part.function
        found = part if isinstance(part, FunctionType) else self._global(name)
        return found if isinstance(found, FunctionType) and name not in self.local else None

    def _record(self, node: ast.expr) -> dict[str, ast.expr] | None:
        """Return the fields of an expression that is a record: a name, a new record, or one with replaced fields."""
        if isinstance(node, ast.Name):
            return self.records.get(node.id)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return None
        made, given = self._global(node.func.id), {str(one.arg): one.value for one in node.keywords}
        fields, old = fields_of(made), dict[str, ast.expr]()
        if made is dataclasses.replace:
            known = self._record(node.args[0]) if len(node.args) == 1 else None
            if known is None or not set(given) <= set(known):
                raise self._error(f"`{ast.unparse(node)}`: write `replace(record, field=...)`")
            old, fields = known, tuple(known)
        elif fields is None:
            return None
        elif node.args or set(given) != set(fields):
            raise self._error(f"`{ast.unparse(node)}`: name all fields of the record: {', '.join(fields)}")
        return {field: self.visit(given[field]) if field in given else old[field] for field in fields}

    def _own(self, name: str) -> ast.Name:
        """Return a new variable of this function."""
        if name in self.local:
            raise self._error(f"`{name}` stands for a field of a record: give the variable another name")
        self.local.add(name)
        self.fixed.add(name)
        return ast.Name(name, ast.Load())

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        record = self._record(node.value)
        if record is not None:
            if node.attr not in record or not isinstance(node.ctx, ast.Load):
                raise self._error(
                    f"`{ast.unparse(node)}`: of this record can be read, and not set: {', '.join(record)}"
                )
            return record[node.attr]
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
        if node.id in self.records:
            raise self._error(f"`{node.id}` is a record: read its fields, or hand it to a function")
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
    """Return whether a function returns a part of an array, for which targets have another decorator."""
    found = (one.value for one in ast.walk(node) if isinstance(one, ast.Return))
    return any(isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) for value in found)


def _number(value: float) -> ast.expr:
    """Return a literal of the working precision."""
    if math.isnan(value):
        return ast.parse("real(np.nan)", mode="eval").body
    if math.isinf(value):
        return ast.parse("real(inf)" if value > 0 else "-real(inf)", mode="eval").body
    return ast.parse(f"real({value!r})", mode="eval").body
