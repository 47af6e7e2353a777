"""Every error that Tightrope raises on purpose, drawn as a tree.

TightropeError
├── InputError            an argument is wrong: the message names it, what came, what is accepted
├── BundleError           a bundle is missing, cut short, edited, foreign or of another format
├── UnsupportedModel      a checkpoint, selector or precision that export cannot serve
├── BudgetUnreachable     no operating point meets the budget
├── ProfileError          a measurement of this bundle on this board is missing, damaged or foreign
├── BackendError          the engine underneath failed, or cannot do what was asked of it
├── DeviceUnavailable     the hardware or its driver that was asked for is not here
└── ServiceError          systemd refuses, or the service did not become ready
"""


class TightropeError(Exception):
    """Base of all errors that Tightrope raises on purpose; its text says the way out."""


class InputError(TightropeError, ValueError):
    """An argument is wrong: the message names it, what came and what is accepted."""


class BundleError(TightropeError):
    """A bundle is missing, cut short, edited, foreign or of another format."""


class UnsupportedModel(TightropeError):
    """A checkpoint, selector or precision that export cannot serve."""


class BudgetUnreachable(TightropeError):
    """No operating point meets the budget."""

    def __init__(
        self,
        text: str,
        fastest_ms: float | None = None,
        retry_ms: float | None = None,
        slowed: bool = False,
    ) -> None:
        """fastest_ms: what the fastest point needs in 80 of 100 requests; None if none may run.

        retry_ms: after which it could be met, if only other requests are in its way. slowed:
        whether it could be met if the machine were as fast as when it was measured.
        """
        super().__init__(text)
        self.fastest_ms, self.retry_ms, self.slowed = fastest_ms, retry_ms, slowed


class ProfileError(TightropeError):
    """A measurement is missing, damaged or foreign; its text names the command that makes one."""


class BackendError(TightropeError):
    """The engine underneath failed, or cannot do what was asked of it."""


class DeviceUnavailable(TightropeError):
    """The hardware or its driver that was asked for is not here."""


class ServiceError(TightropeError):
    """systemd refuses, or the service did not become ready."""
