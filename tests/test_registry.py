"""Tables that fill themselves from the files of a package."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tightrope.registry import discover


@dataclass(frozen=True)
class Entry:
    name: str


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package without modules, of a name that no other test has."""
    folder = tmp_path / f"methods_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "kind_of_a_test", sys.modules[__name__])
    return folder


def write(package: Path, module: str, text: str) -> None:
    (package / f"{module}.py").write_text(f"from kind_of_a_test import Entry\n{text}\n")


def test_every_instance_is_found_in_the_order_of_the_files(package: Path) -> None:
    write(package, "b", "FIRST, SECOND = Entry('one'), Entry('two')")
    write(package, "a", "ENTRY, NUMBER = Entry('three'), 3")
    (package / "c.py").write_text("def helper(): ...\n")
    assert list(discover(package.name, Entry)) == ["three", "one", "two"]


def test_an_entry_that_another_file_imports_counts_once(package: Path) -> None:
    write(package, "a", "ENTRY = Entry('one')")
    write(package, "b", f"from {package.name}.a import ENTRY")
    assert list(discover(package.name, Entry)) == ["one"]


def test_two_of_one_name_are_refused(package: Path) -> None:
    write(package, "a", "ENTRY = Entry('one')")
    write(package, "b", "ENTRY = Entry('one')")
    with pytest.raises(AssertionError, match=r"b has a second Entry named 'one'"):
        discover(package.name, Entry)
