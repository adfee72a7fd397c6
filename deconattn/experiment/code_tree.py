"""A package's files as definitions: what each name stands for, and each definition as text in which names are resolved.

Files are parsed, nothing is imported. What the text leaves out is listed in `code`.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from deconattn.errors import UserError

WHOLE = "*"
FUNCTIONS, IMPORTS = ast.FunctionDef | ast.AsyncFunctionDef, ast.Import | ast.ImportFrom
IDLE_CONDITIONS = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
SKIPPED = ("ctx", "type_comment", "kind", "returns")
"""Fields of a node that are left out, as are empty ones, in which versions of Python differ."""


class Definition(NamedTuple):
    """A top-level name of a module; `WHOLE` for all of it, `(import n)` for its n-th statement that works on import."""

    module: str
    name: str


Part = str | Definition


class Module:
    """The top level of a file.

    Attributes:
        statements: Name → the statements that give it a value.
        imports: Name → full name of what is imported under it.
        at_import: `(import n)` → the statement, of those that do more than give names.
        loads: Full names of what it imports from its package.
        libraries: Full names of what it imports from elsewhere.
    """

    def __init__(self, path: Path, package: str) -> None:
        self.path = path
        self.statements: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, str] = {}
        self.loads: list[str] = []
        self.libraries: set[str] = set()
        working = []
        for statement in _parsed(path).body:
            if isinstance(statement, IMPORTS):
                for name, means, loads in imported(statement, path):
                    self.imports[name] = means
                    self.loads.append(loads) if loads.split(".")[0] == package else self.libraries.add(loads)
            elif not _is_idle(statement):
                for name in bound(statement):
                    self.statements.setdefault(name, []).append(statement)
                if not _only_defines(statement):
                    working.append(statement)

        def is_ours(decorator: ast.expr) -> bool:
            name = ast.unparse(decorator).partition("(")[0].partition(".")[0]
            return name in self.statements or self.imports.get(name, "").partition(".")[0] == package

        # a decorator of this package may keep what it decorates in a registry
        nodes = [node for nodes in self.statements.values() for node in nodes]
        working += [node for node in nodes if any(map(is_ours, getattr(node, "decorator_list", ())))]
        self.at_import = {f"(import {number})": node for number, node in enumerate(working)}
        self.classes = [name for name, nodes in self.statements.items() if isinstance(nodes[0], ast.ClassDef)]


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1  # none of a null byte
        raise UserError(f"{path}:{line}: not valid Python ({getattr(error, 'msg', error)})") from None


def imported(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[tuple[str, str, str]]:
    """Each name that an import binds, with the full names of what it binds and of what it loads."""
    for each in node.names:
        if isinstance(node, ast.Import):
            means = each.name if each.asname else each.name.split(".")[0]
            yield each.asname or means, means, each.name
        elif node.level or each.name == "*":
            raise UserError(f"{path}:{node.lineno}: a relative or starred import; this package imports by full names")
        elif node.module != "__future__":
            yield each.asname or each.name, f"{node.module}.{each.name}", f"{node.module}.{each.name}"


def targets(statement: ast.stmt) -> list[ast.expr]:
    """What an assignment assigns to."""
    if isinstance(statement, ast.Assign):
        return statement.targets
    return [statement.target] if isinstance(statement, ast.AnnAssign | ast.AugAssign) else []


def bound(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement gives; some more where it is a block."""
    if isinstance(statement, FUNCTIONS | ast.ClassDef):
        return {statement.name}
    found = set()
    parts: list[ast.AST] = [*targets(statement)] or [statement]
    for node in (inner for part in parts for inner in ast.walk(part)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, FUNCTIONS | ast.ClassDef):
            found.add(node.name)
    return found


def _only_defines(statement: ast.stmt) -> bool:
    named = [isinstance(each, ast.Name | ast.Tuple | ast.List) for each in targets(statement)]
    return all(named) if named else isinstance(statement, FUNCTIONS | ast.ClassDef)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_idle(statement: ast.stmt) -> bool:
    """Whether nothing of a statement happens when its module is imported."""
    if not isinstance(statement, ast.If) or statement.orelse:
        return _is_docstring(statement)
    return ast.unparse(statement.test) in IDLE_CONDITIONS


class Package:
    """A package's files, each parsed when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.name
        self.path, self.module = cache(self._path), cache(self._module)

    def _path(self, module: str) -> Path | None:
        base = self.root.joinpath(*module.split(".")[1:])
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

    def _module(self, module: str) -> Module:
        if (path := self.path(module)) is None:
            raise ModuleNotFoundError(f"no module {module!r} in {self.root}")
        return Module(path, self.name)

    def has(self, name: str) -> bool:
        """Whether a full name belongs to this package."""
        return name.partition(".")[0] == self.name

    def resolve(self, name: str) -> Part | None:
        """What a full name stands for: a definition, or itself if it is a module or a library's; None for nothing."""
        if not self.has(name) or self.path(name):
            return name
        owner, _, last = name.rpartition(".")
        found = self.resolve(owner)
        return self.member(found, last) if isinstance(found, str) else None

    def member(self, owner: str, name: str) -> Part | None:
        """An attribute of a module."""
        if not self.has(owner):
            return f"{owner}.{name}"
        module = self.module(owner)
        if name in module.statements:
            return Definition(owner, name)
        if name in module.imports:
            return self.resolve(module.imports[name])
        if self.path(f"{owner}.{name}"):
            return f"{owner}.{name}"
        return Definition(owner, "__getattr__") if "__getattr__" in module.statements else None


class Unit:
    """The text of a definition, with a `Definition` for each name of this package that it refers to.

    Attributes:
        pieces: The text of each method, and under "" all that stands in none; `text` is all of it.
        loads: Full names of what it imports from its package.
    """

    def __init__(self, package: Package, definition: Definition) -> None:
        self.package, self.module_name, self.module = package, definition.module, package.module(definition.module)
        self.pieces: dict[str, list[Part]] = {"": []}
        self.loads: set[str] = set()
        self.parts = self.pieces[""]
        if definition.name == WHOLE:
            self.parts += [Definition(definition.module, name) for name in sorted(self.module.statements)]
        at_import = self.module.at_import.get(definition.name)
        for top in [at_import] if at_import else self.module.statements.get(definition.name, []):
            nodes = (node for node in ast.walk(top) if isinstance(node, IMPORTS))
            self.top, self.imports = top, [each for node in nodes for each in imported(node, self.module.path)]
            self.loads |= {loads for _, _, loads in self.imports if package.has(loads)}
            self._write(top, self.module)
        self.text = [part for piece in self.pieces.values() for part in piece]

    def what(self, node: ast.AST) -> set[Part]:
        """What a name or a dotted name can stand for; nothing for what is local, builtin or computed.

        A local name counts as what it hides in the module or elsewhere in the definition: too much, and never too little.
        """
        found: set[Part | None] = set()
        if isinstance(node, ast.Name):
            found = {self.package.resolve(means) for name, means, _ in self.imports if name == node.id}
            if node.id in self.module.statements or node.id in self.module.imports:
                found.add(self.package.member(self.module_name, node.id))
        elif isinstance(node, ast.Attribute):
            owners = self.what(node.value)
            found = {self.package.member(each, node.attr) if isinstance(each, str) else None for each in owners}
        return set() if None in found else {each for each in found if each}

    def _write(self, node: ast.AST, parent: object, in_function: bool = False) -> None:
        match node:
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()) if found := self.what(node):
                self.parts += sorted(map(self._part, found), key=str)
            case ast.Name(id=name) | ast.arg(arg=name):
                self.parts.append(f"{name},")
            case ast.AnnAssign() if not isinstance(parent, ast.ClassDef):
                if node.value:
                    self._write_fields(ast.Assign([node.target], node.value), in_function)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if parent is self.top and isinstance(parent, ast.ClassDef):
                self.parts.append(f"def {node.name},")
                self.parts = self.pieces.setdefault(node.name, [])
                self._write_fields(node, True)
                self.parts = self.pieces[""]
            case ast.Import() | ast.ImportFrom():
                # Within a function its uses tell what it means; elsewhere others may refer to the whole statement.
                for _, _, name in imported(node, self.module.path):
                    if not self.package.has(name):
                        self.parts.append(f"import {name};")
                    elif not in_function and (means := self.package.resolve(name)):
                        self.parts.append(self._part(means))
            case ast.Raise():
                self._write_fields(ast.Raise(self._without_text(node.exc), node.cause), in_function)
            case ast.Assert():
                self._write_fields(ast.Assert(node.test), in_function)
            case _ if not _is_docstring(node):
                self._write_fields(node, in_function or isinstance(node, FUNCTIONS))

    def _part(self, found: Part) -> Part:
        """How something resolved stands in the text: a module of this package as all that it defines."""
        if isinstance(found, Definition):
            return found
        return Definition(found, WHOLE) if self.package.has(found) else f"<{found}>"

    def _write_fields(self, node: ast.AST, in_function: bool) -> None:
        self.parts.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if value is None or value == [] or name in SKIPPED:
                continue
            self.parts.append(f"{name}=")
            for item in value if isinstance(value, list) else [value]:
                self._write(item, node, in_function) if isinstance(item, ast.AST) else self.parts.append(f"{item!r},")
        self.parts.append(")")

    def _without_text(self, error: ast.expr | None) -> ast.expr | None:
        if not isinstance(error, ast.Call):
            return error
        found = self.what(error.func)
        if any(isinstance(each, Definition) and each.name == "UserError" for each in found):
            return ast.Call(error.func, [], [])
        if not found and isinstance(error.func, ast.Name) and hasattr(builtins, error.func.id):
            return ast.Call(error.func, [each for each in error.args if not _is_text(each)], error.keywords)
        return error


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
