"""What TensorRT says, kept instead of printed: its calls answer no more than that they failed."""

from __future__ import annotations

from typing import Any


def make_logger(trt: Any) -> Any:
    """A logger whose `warnings` and `errors` are lists of what was said."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings.append(message)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def last_words(logger: Any) -> str:
    """The newest error, as the end of a sentence."""
    return str(logger.errors[-1]).strip() if logger.errors else "TensorRT says no more"
