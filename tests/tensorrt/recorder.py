"""A stand-in for the module `tensorrt`: it has what the bindings have, and notes what is missing.

Its classes give no objects, because without TensorRT there are none: what a call or an attribute
gives is told by the signatures that the bindings carry as text, and stands for an object of that
class. So a program runs through, and everything that it asks for is held against the bindings.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((?P<parameters>.*)\) -> (?P<result>\S.*)$", re.MULTILINE)
_NAME = re.compile(r"^\s*\*{0,2}(\w+)")
_PLAIN: dict[str, Any] = {"int": 1, "bool": True, "str": "S", "float": 1.0, "None": None}


class Missing(AttributeError):
    """The bindings have no such thing."""


class Recorder:
    """What is asked of one version of the bindings, and what of it is not there."""

    def __init__(self, real: Any, values: dict[str, Any]) -> None:
        """real: the module. values: what "Class.attribute" or "Class.method" gives."""
        self._real, self._values = real, values
        self.asked: set[str] = set()
        self.missing: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return self.read(self._real, "", name)

    def read(self, owner: Any, path: str, name: str) -> Any:
        """The attribute of a module or class, wrapped where it is a class or has a signature."""
        whole = f"{path}.{name}".lstrip(".")
        self.asked.add(whole)
        if not hasattr(owner, name):
            self.missing.append(whole)
            return Anything(self, whole)
        value = inspect.getattr_static(owner, name)
        if inspect.isclass(getattr(owner, name)):
            return Class(self, getattr(owner, name), name)
        if isinstance(value, property):
            return self.result(whole, (value.fget.__doc__ or "") if value.fget else "")
        if inspect.isroutine(getattr(owner, name)):
            return Method(self, whole, getattr(owner, name).__doc__ or "")
        return getattr(owner, name)  # a member of an enumeration

    def result(self, path: str, documented: str) -> Any:
        """What stands for the result of a call or an attribute."""
        if path in self._values:
            return self._values[path]
        found = _SIGNATURE.search(documented) or re.search(r"-> (?P<result>\S.*)", documented)
        kind = found["result"].strip().rpartition(".")[2] if found else "None"
        if kind in _PLAIN:
            return _PLAIN[kind]
        real = getattr(self._real, kind, None)
        return Instance(self, real, kind) if inspect.isclass(real) else Anything(self, path)


class Anything:
    """Of something whose kind nobody tells: it gives itself."""

    def __init__(self, recorder: Recorder, path: str) -> None:
        self._recorder, self._path = recorder, path

    def __getattr__(self, name: str) -> Anything:
        return self

    def __call__(self, *arguments: Any, **named: Any) -> Anything:
        return self


class Instance:
    """Stands for an object of one of the bindings' classes."""

    def __init__(self, recorder: Recorder, real: type, name: str) -> None:
        object.__setattr__(self, "_of", (recorder, real, name))

    def __getattr__(self, name: str) -> Any:
        recorder, real, own = self._of
        return recorder.read(real, own, name)

    def __setattr__(self, name: str, value: Any) -> None:
        recorder, real, own = self._of
        recorder.asked.add(f"{own}.{name}")
        found = inspect.getattr_static(real, name, None)
        if not (isinstance(found, property) and found.fset):
            recorder.missing.append(f"{own}.{name} cannot be set")


class Class:
    """One of the bindings' classes; calling it gives an instance, its attributes are its own."""

    def __init__(self, recorder: Recorder, real: type, name: str) -> None:
        self._recorder, self._real, self._name = recorder, real, name
        # A class of ours that derives from it calls the real one.
        vars(self)["__init__"] = inspect.getattr_static(real, "__init__")

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (self._real,)  # what our program derives from is the real one

    def __getattr__(self, name: str) -> Any:
        return self._recorder.read(self._real, self._name, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        documented = inspect.getattr_static(self._real, "__init__").__doc__ or ""
        check_call(self._recorder, f"{self._name}.__init__", documented, arguments, named)
        return Instance(self._recorder, self._real, self._name)


class Method:
    """A method or function of the bindings; a call is held against its signatures."""

    def __init__(self, recorder: Recorder, path: str, documented: str) -> None:
        self._recorder, self._path, self._documented = recorder, path, documented

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        check_call(self._recorder, self._path, self._documented, arguments, named)
        return self._recorder.result(self._path, self._documented)


def check_call(
    recorder: Recorder,
    path: str,
    documented: str,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    """Note a call that no signature of the method takes."""
    signatures = [found["parameters"] for found in _SIGNATURE.finditer(documented)]
    if signatures and not any(_takes(text, len(arguments), named) for text in signatures):
        told = [*("_" * len(arguments)), *(f"{name}=" for name in named)]
        recorder.missing.append(f"{path}({', '.join(told)}) is not {' or '.join(signatures)}")


def _takes(parameters: str, positional: int, named: dict[str, Any]) -> bool:
    """Whether a signature such as `self: X, flags: int = 0` takes such a call."""
    each = [part for part in _split(parameters) if _NAME.match(part)]
    names = [_NAME.match(part)[1] for part in each]  # type: ignore[index]
    if names[:1] == ["self"]:
        each, names = each[1:], names[1:]
    if any(part.strip().startswith("*") for part in each):
        return True
    given = {*names[:positional], *named}
    needed = {name for name, part in zip(names, each, strict=True) if "=" not in part}
    return positional <= len(names) and needed <= given and set(named) <= set(names[positional:])


def _split(parameters: str) -> list[str]:
    """By the commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "[({<") - (letter in "])}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
