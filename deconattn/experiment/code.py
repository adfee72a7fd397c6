"""The code that a stage can reach, as one digest: what changes it changes results, what does not leaves it alone.

The digest covers the syntax trees of a module's import closure within this package, without docstrings, comments
and positions. So reformatting, rewording and editing a module that the stage cannot import change nothing, and
editing any function that it could call does. Nothing is imported to find this out: files are parsed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment import trees

PACKAGE = Path(__file__).resolve().parent.parent
NAME = PACKAGE.name


def code_digest(*modules: str) -> str:
    """16 hexadecimal digits over the import closure of `modules` ("deconattn.training.run", …), in whatever order."""
    key = " ".join(sorted(set(modules)))
    if key not in _digests:
        text = "\n".join(f"{module} {_parsed(module)[0]}" for module in closure(*modules))
        _digests[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _digests[key]


def closure(*modules: str) -> list[str]:
    """All modules of this package that `modules` can import, themselves included, in alphabetical order."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        # The package's own __init__ holds its version and hands out names lazily: nothing of it reaches a result.
        if module not in found and module != NAME:
            found.add(module)
            waiting.extend(_parsed(module)[1])
    return sorted(found)


def parts_of(*modules: str) -> dict[str, dict[str, str]]:
    """Module → function or method ("Class.method") → digest, over the import closure: what tells *where* code differs.

    Whatever stands outside functions is "(module)", and what stands in a class outside its methods is the class.
    """
    return {module: _parts(module) for module in closure(*modules)}


def memo() -> dict[str, dict[str, Any]]:
    """Every digest and class constant that was asked for: what a launch hands to its jobs."""
    return {"digests": dict(_digests), "constants": dict(_constants)}


def restore(known: dict[str, dict[str, Any]]) -> None:
    """Answer from what a launch knew, and not from the files as they now are."""
    _digests.update(known["digests"])
    _constants.update(known["constants"])


@contextmanager
def as_known(known: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Answer from `known` alone for a while; afterwards from what was known before."""
    before = memo()
    try:
        _replace(known)
        yield
    finally:
        _replace(before)


def _replace(known: dict[str, dict[str, Any]]) -> None:
    _digests.clear()
    _constants.clear()
    restore(known)


_digests: dict[str, str] = {}
_constants: dict[str, str | None] = {}


@cache
def _parts(module: str) -> dict[str, str]:
    path = _path(module)
    found: dict[str, str] = {}

    def visit(owner: ast.Module | ast.ClassDef, prefix: str, name: str) -> None:
        rest = []
        for statement in owner.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                # a property and its setter share a name
                key = prefix + statement.name
                found[key] = _short(found.get(key, "") + _canonical(statement))
            elif isinstance(statement, ast.ClassDef):
                visit(statement, f"{prefix}{statement.name}.", prefix + statement.name)
            elif statement is not owner.body[0] or not _is_docstring(owner, statement):
                rest.append(_canonical(statement))
        head = [] if isinstance(owner, ast.Module) else [*owner.bases, *owner.keywords, *owner.decorator_list]
        found[name] = _short("\n".join([*map(_canonical, head), *rest]))

    if path:
        visit(_tree(path, path.read_bytes()), "", "(module)")
    return found


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree, and the modules of this package that it imports."""
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module!r} in {PACKAGE}")
    data = path.read_bytes()
    digest, certain, possible = trees.get(data, lambda: _read(path, data))
    return digest, tuple(sorted({*certain, *(name for name in possible if _path(name))}))


def _tree(path: Path, data: bytes) -> ast.Module:
    """The syntax tree of a file; a `UserError` that names file and line for what is none."""
    try:
        return ast.parse(data, filename=str(path))
    except (SyntaxError, ValueError) as error:  # a null byte is one or the other, by Python's version, and on no line
        line = getattr(error, "lineno", None) or data.partition(b"\0")[0].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not valid Python ({getattr(error, 'msg', error)})") from None


def _read(path: Path, data: bytes) -> trees.Tree:
    tree = _tree(path, data)
    certain: set[str] = set()
    possible: set[str] = set()
    for name, is_certain in _imports(tree, path):
        (certain if is_certain else possible).add(name)
    return hashlib.sha256(_canonical(tree).encode()).hexdigest(), sorted(certain), sorted(possible)


def class_constant(module: str, name: str) -> str | None:
    """The string that the class of `module` assigns to `name`, itself or a base within this package; None if none does.

    Files are read and not imported.
    """
    key = f"{module} {name}"
    if key not in _constants:
        classes = _classes(module)[0]
        found = (_assigned(module, owner, name) for owner in classes)
        _constants[key] = next((value for value in found if value is not None), None)
    return _constants[key]


@cache
def _classes(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """Classes of a module by name, and what its other names stand for: a module, or a thing of one, by full name."""
    path = _path(module)
    tree = _tree(path, path.read_bytes()) if path else ast.Module([], [])
    classes: dict[str, ast.ClassDef] = {}
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            classes.setdefault(node.name, node)
        elif isinstance(node, ast.Import):
            names |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return classes, names


def _assigned(module: str, owner: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> str | None:
    """What a class assigns to `name` in its body, or else what it inherits; None where nothing or None is assigned."""
    classes, names = _classes(module)
    if (module, owner) in seen:
        return None
    seen = seen | {(module, owner)}
    if owner not in classes:
        # handed on by a module that imports it itself
        target = names.get(owner, "").rpartition(".")
        return _assigned(target[0], target[2], name, seen) if target[0].split(".")[0] == NAME else None
    for statement in classes[owner].body:
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else getattr(statement, "targets", [])
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Constant) and any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return None if value.value is None else str(value.value)
    for base in classes[owner].bases:
        start, *rest = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")
        place, _, inherited = ".".join([names.get(start, start), *rest]).rpartition(".")
        if (found := _assigned(place or module, inherited, name, seen)) is not None:
            return found
    return None


def _path(module: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(node: ast.AST, path: Path) -> Iterator[tuple[str, bool]]:
    """Modules of this package that are imported, and with False names that may be modules too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _imports(other, path)
        elif isinstance(child, ast.Import):
            yield from ((name.name, True) for name in child.names if name.name.split(".")[0] == NAME)
        elif isinstance(child, ast.ImportFrom):
            if child.level:
                raise UserError(f"{path}:{child.lineno}: a relative import; this package imports by full names")
            if (child.module or "").split(".")[0] == NAME:
                yield child.module or "", True
                yield from ((f"{child.module}.{name.name}", False) for name in child.names)
        else:
            yield from _imports(child, path)


def _canonical(node: ast.AST) -> str:
    """A text of the tree that does not depend on positions, docstrings or, by leaving empty fields out, on the Python version."""
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_docstring(node, value[0]):
            value = value[1:]
        if value in (None, []) or name in ("type_comment", "kind"):
            continue
        if isinstance(value, ast.AST):
            parts.append(f"{name}={_canonical(value)}")
        elif isinstance(value, list):
            items = (_canonical(item) if isinstance(item, ast.AST) else repr(item) for item in value)
            parts.append(f"{name}=[{','.join(items)}]")
        else:
            parts.append(f"{name}={value!r}")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(owner: ast.AST, statement: ast.AST) -> bool:
    return (
        isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
