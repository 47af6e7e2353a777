"""The one place where errors of other libraries become ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tightrope.errors import TightropeError

_MOST_WORDS = 500


@contextlib.contextmanager
def translated(kind: type[TightropeError], what: str, way_out: str) -> Iterator[None]:
    """Inside, whatever a library raises is a `kind` that says `what`, its words, and the way out.

    what: begins the sentence, such as "tokenizer.json is no tokenizer". Our own errors, interrupts
    and a full memory pass as they are.
    """
    try:
        yield
    except (TightropeError, MemoryError):
        raise
    # Readers of files raise plain Exception, KeyError, AssertionError and more over damaged ones,
    # and ONNX Runtime's classes share no base: no list of classes holds.
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise kind(f"{what}: {words(error)}; {way_out}") from error


def _is_panic(error: BaseException) -> bool:
    """Whether code in Rust, such as that of tokenizers, gave up: no Exception, nor importable."""
    return type(error).__module__ == "pyo3_runtime"


def words(error: BaseException) -> str:
    """What an error says, on one line, with its class where it says nothing by itself."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text[:_MOST_WORDS] or type(error).__name__
