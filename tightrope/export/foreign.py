"""The one place of export where errors of other libraries become ours."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import transformers

from tightrope.errors import TightropeError, UnsupportedModel


@contextlib.contextmanager
def reading(what: str, way_out: str = "get the checkpoint again") -> Iterator[None]:
    """Inside, whatever a library raises over a checkpoint is an UnsupportedModel.

    what: begins the sentence, such as "MODEL has no tokenizer that can be read". Our own errors,
    interrupts and a full memory pass as they are.
    """
    try:
        yield
    except (TightropeError, MemoryError):
        raise
    # The readers of transformers, tokenizers, gguf, torch and safetensors raise plain Exception,
    # KeyError, AssertionError and more over damaged files: no list of classes holds.
    except Exception as error:
        raise UnsupportedModel(f"{what}: {words(error)}; {way_out}") from error


@contextlib.contextmanager
def exporting(name: str) -> Iterator[None]:
    """Inside, what a library raises over a checkpoint that was read well is an UnsupportedModel.

    Errors of the disk pass: they are of the place that is written to. So do failed assertions,
    which are ours.
    """
    try:
        yield
    except (TightropeError, MemoryError, OSError, AssertionError):
        raise
    except Exception as error:
        raise UnsupportedModel(
            f"{name} cannot be exported: {type(error).__name__}: {words(error)}"
        ) from error


def words(error: BaseException) -> str:
    """What an error says, on one line, with its class where it says nothing by itself."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text[:500] or type(error).__name__


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """transformers writes progress bars, advice and load reports to the terminal."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
