"""The package is laid out as it says: parts, links, layers of imports, and what starts quickly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tightrope

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("export", "runtime", "plugins", "profiles", "jetson")
HEAVY = {
    "PIL",
    "dask",
    "distributed",
    "jinja2",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
}

IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Block())
for part in ("tightrope.runtime", "tightrope.plugins"):
    package = importlib.import_module(part)
    for module in pkgutil.walk_packages(package.__path__, part + "."):
        kind = module.name.rpartition(".")[2].partition("_")[0]
        if kind not in ("body", "builder", "kernel", "plugin", "tiles", "tools"):
            importlib.import_module(module.name)
"""

# Told on the way out, since a command ends by leaving the program.
TELL_MODULES = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(list(sys.modules))))
"""


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def modules_after(statement: str) -> set[str]:
    return set(json.loads(run_python(TELL_MODULES + statement).splitlines()[-1]))


@pytest.mark.parametrize("part", PARTS)
def test_each_link_at_the_root_is_relative_and_leads_to_the_part_of_its_name(part: str) -> None:
    link = ROOT / part
    assert link.is_symlink()
    assert link.readlink() == Path("tightrope") / part
    assert link.resolve() == Path(tightrope.__file__).resolve().parent / part
    assert (link / "__init__.py").is_file()


def test_the_version_is_set() -> None:
    assert tightrope.__version__.count(".") == 2


@pytest.mark.parametrize("statement", ["import tightrope", "import tightrope.cli"])
def test_importing_loads_nothing_heavy_and_no_part_under_its_bare_name(statement: str) -> None:
    packages = {name.partition(".")[0] for name in modules_after(statement)}
    assert packages & HEAVY == set()
    assert packages & set(PARTS) == set()


@pytest.mark.parametrize(
    "command",
    [
        *("", "run", "serve", "export", "bench", "profile", "inspect", "task score", "task make"),
        *("frontier show", "frontier report", "frontier compare", "service install"),
    ],
)
def test_help_loads_nothing_heavy(command: str) -> None:
    arguments = ["tightrope", *command.split(), "--help"]
    loaded = modules_after(f"import tightrope.cli; sys.argv = {arguments}; tightrope.cli.main()")
    packages = {name.partition(".")[0] for name in loaded}
    assert "typer" in packages
    assert packages & HEAVY == set()


def test_runtime_and_plugins_import_without_any_package_of_the_export() -> None:
    blocked = {"onnx", "onnx_ir", "onnxscript", "torch", "transformers", "triton"}
    run_python(IMPORT_WITHOUT.format(blocked=blocked))


@pytest.mark.parametrize("name", tightrope.__all__)
def test_every_public_name_can_be_fetched(name: str) -> None:
    assert getattr(tightrope, name) is not None
    assert name in dir(tightrope)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        tightrope.exprot  # type: ignore[attr-defined]  # noqa: B018


def test_export_stays_callable_once_the_part_of_that_name_is_imported() -> None:
    code = """
import sys, types
api = types.ModuleType("tightrope.export.export")
api.export = lambda *args, **kwargs: (args, kwargs)
sys.modules["tightrope.export.export"] = api
import tightrope as tr
before = tr.export("in", "out", config=None)
import tightrope.export
assert before == tr.export("in", "out", config=None) == (("in", "out"), {"config": None})
assert tr.export is sys.modules["tightrope.export"]
"""
    run_python(code)
