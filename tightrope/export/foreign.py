"""Where errors of what reads checkpoints become ours, and its chatter ends."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import transformers

from tightrope.errors import TightropeError, UnsupportedModel
from tightrope.foreign import translated, words


@contextlib.contextmanager
def reading(what: str, way_out: str = "get the checkpoint again") -> Iterator[None]:
    """Inside, whatever a library raises over a checkpoint is an UnsupportedModel.

    what: begins the sentence, such as "MODEL has no tokenizer that can be read". Our own errors,
    interrupts and a full memory pass as they are.
    """
    with translated(UnsupportedModel, what, way_out):
        yield


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
