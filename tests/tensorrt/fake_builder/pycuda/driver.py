"""One GPU that does nothing."""

from __future__ import annotations


class Error(Exception):
    pass


class Context:
    def push(self) -> None:
        pass

    @staticmethod
    def pop() -> None:
        pass

    def detach(self) -> None:
        pass


class Device:
    def __init__(self, ordinal: int) -> None:
        assert ordinal == 0

    def name(self) -> str:
        return "a device that is not there"

    def compute_capability(self) -> tuple[int, int]:
        return 8, 7

    def retain_primary_context(self) -> Context:
        return Context()


class Stream:
    handle = 1


def init() -> None:
    pass
