"""Which code shapes a result. Recipes of items, keys of checkpoints and the test of dvc.yaml all ask `code_of`.

Imports are followed from the function that makes the result. A module of `models/` counts whole. Of a module of
`stages/` only those definitions count that the function uses, because it also holds tables, paths and commands.
Comments and docstrings do not count.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from models.estimators import KINDS, estimator_module_name, second_tracker
from stages.params import Params

SHAPES_NOTHING = {
    "stages.run": "decides where and how a stage runs; results are the same everywhere",
    "stages.params": "describes parameters; the values that shape a result are in its recipe themselves",
    "models.errors": "words errors",
    "models.disk": "words errors of disks",
    "models.torchvision_ops": "makes an import possible",
}
TRACKER_LOADERS = {"load_tracker_of_generated", "load_second_tracker"}
LOADERS = {"load_estimator", "estimator_module"} | TRACKER_LOADERS  # called with the name of an estimator
ALL = "*"  # a module as a whole


class Definition(NamedTuple):
    """A top-level name of a module, or all of it."""

    module: str
    name: str


def code_of(function: Callable[..., Any], params: Params | None = None) -> dict[Definition, str]:
    """The source of everything that `function` uses, by definition, without comments and docstrings.

    Args:
        params: name the estimators where the code does not.
    """
    while isinstance(function, partial):
        function = function.func
    found: dict[Definition, str] = {}
    waiting = [Definition(function.__module__, function.__qualname__.partition(".")[0])]
    while waiting:
        definition = waiting.pop()
        if definition.module.startswith("models"):
            definition = Definition(definition.module, ALL)
        if definition in found or _shapes_nothing(definition.module):
            continue
        nodes = _nodes(definition)
        found[definition] = "\n".join(map(_source, nodes))
        for node in nodes:
            waiting += _imported(node, definition.name)
            waiting += _used_here(node, definition.module)
            waiting += _estimators(node, definition.module, params)
    return {definition: source for definition, source in sorted(found.items()) if source}


def files_of(code: dict[Definition, str]) -> list[Path]:
    """The files that the code stands in."""
    return sorted({module_file(definition.module) for definition in code})


@cache
def module_file(module: str) -> Path:
    """Where a module of the project stands."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin)


def _shapes_nothing(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in SHAPES_NOTHING)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(module_file(module).read_text(encoding="utf-8"))


@cache
def _top_level(module: str) -> dict[str, ast.stmt]:
    """The statement that gives each top-level name of a module its meaning."""
    names: dict[str, ast.stmt] = {}
    for node in _tree(module).body:
        for name in _names_given_by(node):
            names[name] = node
    return names


def _names_given_by(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _nodes(definition: Definition) -> list[ast.stmt]:
    """The statements of a definition."""
    if definition.name == ALL:
        return _tree(definition.module).body
    node = _top_level(definition.module).get(definition.name)
    return [] if node is None else [node]


@cache
def _source(node: ast.stmt) -> str:
    """The statement as code, without docstrings; comments are gone already. Nothing for an import: it is followed."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if not isinstance(body, list) or not isinstance(inner, ast.Module | ast.FunctionDef | ast.ClassDef):
            continue
        kept = [each for each in body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
        inner.body = kept or [ast.Pass()]
    return ast.unparse(copy)


def _imported(node: ast.stmt, wanted: str) -> Iterator[Definition]:
    """What the imports within a statement bring from this project; of an import itself, the wanted name alone."""
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Import | ast.ImportFrom):
            continue
        chosen = [alias for alias in inner.names if inner is not node or wanted in (ALL, alias.asname or alias.name)]
        for alias in chosen:
            if isinstance(inner, ast.Import):
                target = Definition(alias.name, ALL)
            else:
                submodule = f"{inner.module}.{alias.name}"
                target = Definition(submodule, ALL) if _exists(submodule) else Definition(str(inner.module), alias.name)
            if target.module.partition(".")[0] in ("models", "stages"):
                yield target


def _used_here(node: ast.stmt, module: str) -> Iterator[Definition]:
    """The top-level names of its own module that a statement uses."""
    known = _top_level(module)
    if module.startswith("stages"):
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        yield from (Definition(module, name) for name in names & known.keys() if known[name] is not node)


def _estimators(node: ast.stmt, module: str, params: Params | None) -> Iterator[Definition]:
    """The modules of the estimators that a statement loads, by the name in the code or else in the parameters."""
    if module == "models.estimators":  # the table of names itself
        return
    for call in ast.walk(node):
        name = getattr(getattr(call, "func", None), "id", None)
        if not isinstance(call, ast.Call) or name not in LOADERS:
            continue
        texts = [_text(argument, module) for argument in call.args]
        kind = "tracks" if name in TRACKER_LOADERS else texts.pop(0)
        chosen = texts[0] if texts else None
        if chosen is None and params is not None and kind in KINDS:
            chosen = params.estimator(kind)
        if chosen is not None and name == "load_second_tracker":
            chosen = second_tracker(chosen)
        if kind in KINDS and chosen not in (None, "none"):
            yield Definition(estimator_module_name(kind, chosen), ALL)


def _text(node: ast.expr, module: str) -> str | None:
    """The text that an expression stands for, if it is written there or in a constant of this or another module."""
    if isinstance(node, ast.Name):
        given = _top_level(module).get(node.id)
        if isinstance(given, ast.ImportFrom) and _exists(str(given.module)):
            return _text(node, str(given.module))
        node = given.value if isinstance(given, ast.Assign) else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@cache
def _exists(module: str) -> bool:
    """Whether there is such a module of this project."""
    try:
        return module.partition(".")[0] in ("models", "stages") and find_spec(module) is not None
    except ModuleNotFoundError:
        return False
