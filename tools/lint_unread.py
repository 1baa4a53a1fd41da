"""Whoever turns an object of a contract or of a domain into another says something about each of its fields.

`lint_mappings` finds the field that is forgotten where a message is made. This finds the other end: a field that is
added to a protobuf message, to a domain's class or to the body of a request, and that nobody passes on. It looks at

- functions that take a message, or a dataclass of ours, and return a message, a model or such a dataclass, where one
  of the two is of a contract;
- functions that take a model of the HTTP API: bodies, queries and headers of requests.

They read every field of what they take, also of what is nested in it and read in place, or name those that they do
not in a comment in the function or above it: `# does not pass on: version, price.currency`. What is handed on whole is
read by whom it is handed to.

    .venv/bin/python tools/lint_unread.py [FILE ...]
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
_NOT_PASSED_ON = re.compile(r"# does not pass on: ([\w., ]+)$", re.MULTILINE)
_OURS = {path.parent.name for path in ROOT.glob("*/*/src/*/__init__.py")} | {"contracts"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef
# The attributes read one after the other, from a parameter on.
_Chain = tuple[str, ...]


def problems(path: Path) -> list[str]:
    """What is wrong in one module: fields that are not read, and comments that are not true."""
    text = path.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    names = _names(tree)
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, _Function):
            continue
        said = _NOT_PASSED_ON.findall("\n".join(lines[max(0, function.lineno - 2) : function.end_lineno]))
        left_out = {name.strip() for comment in said for name in comment.split(",")}
        unread = {
            ".".join(chain): taken.__name__
            for name, taken in _sources(function, names)
            for chain in _unread(taken, _chains(function, name))
        }
        where = f"{path}:{function.lineno}: {function.name}"
        found += [f"{where} does not read {name} of {unread[name]}" for name in sorted(unread.keys() - left_out)]
        found += [f"{where} does pass on {name}, or does not have it" for name in sorted(left_out - unread.keys())]
    return found


def _names(tree: ast.Module) -> dict[str, object]:
    """What a module imports of ours, by the names it has for it."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in _OURS:
            holder = importlib.import_module(node.module)
            for name in node.names:
                value = getattr(holder, name.name, None)
                if value is None and hasattr(holder, "__path__"):
                    value = importlib.import_module(f"{node.module}.{name.name}")
                found[name.asname or name.name] = value
    return found


def _sources(function: _Function, names: dict[str, object]) -> Iterator[tuple[str, type]]:
    """The parameters that are to be read whole, and their classes."""
    result = _class(function.returns, names)
    for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]:
        taken = _class(argument.annotation, names)
        if taken is None or argument.arg.startswith("_"):
            continue
        maps = result is not None and (_of_contract(taken) or _of_contract(result))
        if maps or (issubclass(taken, Struct) and _of_contract(taken)):
            yield argument.arg, taken


def _class(annotation: ast.expr | None, names: dict[str, object]) -> type | None:
    """The class with fields that an annotation names, if it does; of `X | None`, X."""
    match annotation:
        case ast.Name(name):
            value = names.get(name)
        case ast.Attribute(ast.Name(module), name):
            value = getattr(names.get(module), name, None)
        case ast.BinOp(left, ast.BitOr(), ast.Constant(None)):
            return _class(left, names)
        case _:
            return None
    return value if isinstance(value, type) and _has_fields(value) else None


def _has_fields(value: type) -> bool:
    return issubclass(value, Message | Struct) or dataclasses.is_dataclass(value)


def _of_contract(value: type) -> bool:
    return issubclass(value, Message) or value.__module__.startswith("contracts.")


def _chains(function: _Function, name: str) -> set[_Chain]:
    """What a function reads of a name, and of what it goes through below it."""
    chains = set()
    aliases: dict[str, _Chain] = {name: ()}
    gone_through = set()
    for node in ast.walk(function):
        if isinstance(node, ast.comprehension | ast.For) and isinstance(node.target, ast.Name):
            chain = _chain(node.iter, aliases)
            if chain:
                aliases[node.target.id] = chain
                gone_through.add(node.iter)
    below = {node.value for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute | ast.Name) and node not in below and node not in gone_through:
            chain = _chain(node, aliases)
            if chain is not None and isinstance(node.ctx, ast.Load):
                chains.add(chain)
    return chains


def _chain(node: ast.expr, aliases: dict[str, _Chain]) -> _Chain | None:
    match node:
        case ast.Name(name):
            return aliases.get(name)
        case ast.Attribute(value, name):
            before = _chain(value, aliases)
            return None if before is None else (*before, name)
        case _:
            return None


def _unread(taken: type, chains: set[_Chain]) -> Iterator[_Chain]:
    """The fields of a class that none of the chains reads, as chains."""
    if () in chains:
        return
    for name, nested in _fields(taken).items():
        below = {chain[1:] for chain in chains if chain[:1] == (name,)}
        if not below:
            yield (name,)
        elif nested is not None:
            yield from ((name, *rest) for rest in _unread(nested, below))


def _fields(taken: type) -> dict[str, type | None]:
    """The fields of a class; with the class of those that have fields again and are of ours."""
    if issubclass(taken, Message):
        return {field.name: _message_class(field.message_type) for field in taken.DESCRIPTOR.fields}
    hints = typing.get_type_hints(taken)
    return {name: next(_classes(hint), None) for name, hint in hints.items()}


def _message_class(descriptor: object) -> type[Message] | None:
    if isinstance(descriptor, Descriptor) and not descriptor.full_name.startswith("google."):
        return GetMessageClass(descriptor)
    return None


def _classes(hint: object) -> Iterator[type]:
    """The classes with fields in a type: of a union, a list, a tuple."""
    if isinstance(hint, type) and _has_fields(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _classes(argument)


def main() -> None:
    """Check the files named, or all of the services; exits 1 when something is not read."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("services/*/src/**/*.py"))
    found = [problem for path in paths for problem in problems(path)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
