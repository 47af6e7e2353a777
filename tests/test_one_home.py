"""What is written once: names of graphs and of their tensors, and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tightrope
from tightrope.interface import tensors

PACKAGE = Path(tightrope.__file__).parent
DISTINCTIVE = {
    tensors.INPUTS_EMBEDS,
    tensors.QUERY_POSITION,
    tensors.QUERY_REACH,
    tensors.ROPE_POSITION,
    tensors.SLOT_KEY,
    tensors.SLOT_VALUE,
    tensors.SLOT_SCORE,
    tensors.SLOT_POSITION,
    tensors.VISUAL_INDEX,
    tensors.KEEP_RAMP,
    tensors.NEXT_SCORE,
    tensors.NEXT_POSITION,
    tensors.CONV_STATE,
    tensors.NEXT_CONV_STATE,
    tensors.VISUAL_EMBEDS,
    tensors.CLS_ATTENTION,
    tensors.TOWER_KEYS,
    tensors.TOWER_STATES,
    tensors.TEXT_EMBEDS,
}
"""Names that mean nothing else; `policy` or `key` are words of other places as well."""
OF_TOWERS = {
    "pixel_values",
    "position_table",
    "patch_places",
    "cu_window_seqlens",
    "table_places",
    "table_shares",
}


def is_kernel(file: Path) -> bool:
    """Whether it is Triton: arguments of a launch are all its memory and sizes, looked up by name.

    That its names are the op's is tested where calls of it run: `tests/plugins/kernels`.
    """
    return file.name.startswith("kernel") and file.parent.parent == PACKAGE / "plugins"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Line and value of every string of a file's code, those of f-strings included."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documents = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) in documents or not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, str):
            yield node.lineno, node.value


def found(wanted: set[str], homes: tuple[str, ...]) -> list[str]:
    """Places outside `homes` that spell one of `wanted`, numbered or not."""
    return [
        f"{relative(file)}:{line} {text!r}"
        for file in files()
        if not relative(file).startswith(homes) and not is_kernel(file)
        for line, text in texts(file)
        if text.split(".")[0] in wanted
    ]


def test_a_graphs_tensors_are_spelt_in_one_file() -> None:
    assert found(DISTINCTIVE, ("interface/tensors.py",)) == []


def test_a_towers_own_inputs_are_spelt_in_its_two_files() -> None:
    assert found(OF_TOWERS, ("inputs/prepare/", "export/families/")) == []


def test_graph_names_are_composed_in_one_file() -> None:
    spelt = [
        f"{relative(file)}:{line} {text!r}"
        for file in files()
        if relative(file) != "interface/names.py"
        for line, text in texts(file)
        if text.startswith(("host.", "standard.", "plugins."))
    ]
    assert spelt == []


def imports(file: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, inside functions and for types too."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name may be a module of its own.
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def module_of(file: Path) -> str:
    parts = ("tightrope", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_by_any_way_round() -> None:
    names = {module_of(file): file for file in files()}
    edges = {name: imports(file) & set(names) - {name} for name, file in names.items()}
    edges["tightrope"] = set()  # the public names, which a running program fetches one by one
    # What a folder's own file gathers from its modules is no way back from them to it.
    for name in names:
        edges[name] = {other for other in edges[name] if not name.startswith(f"{other}.")}
    circles = []
    for start in names:
        reached, waiting = set(), list(edges[start])
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += edges[module]
        if start in reached:
            circles.append(start)
    assert circles == []


def parameters(function: ast.FunctionDef) -> int:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in arguments)


FORCED = {
    "export/tracing/decoder.py:forward": "a parameter for each kind of a graph's input",
    "plugins/slot_attention/reference.py:slot_attention": "the op's own inputs and attributes",
    "runtime/model.py:generate": "public",
    "runtime/model.py:stream": "public",
    "runtime/chat.py:ask": "public",
    "runtime/chat.py:stream": "public",
    "export/selectors/selector.py:from_score": "the fields of a Selector",
}


@pytest.mark.parametrize("folder", ["export", "runtime", "plugins", "inputs", "interface"])
def test_no_function_takes_more_than_eight_things(folder: str) -> None:
    long = [
        f"{relative(file)}:{node.name} {parameters(node)}"
        for file in files()
        if relative(file).startswith(f"{folder}/") and not is_kernel(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and parameters(node) > 8
        and f"{relative(file)}:{node.name}" not in FORCED
    ]
    assert long == []
