"""Asking systemd's own programs, and saying in a sentence what they have against it."""

from __future__ import annotations

import shutil
import subprocess

from tightrope.errors import ServiceError
from tightrope.jetson.probe import ROOT

_PATIENCE_S = 900
"""`systemctl start` returns when the service is ready: a large bundle is hashed first."""
PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "StatusText", "NRestarts"),
    *("ExecMainStatus", "MemoryCurrent", "WatchdogUSec", "UnitFileState"),
)


def is_running() -> bool:
    """Whether systemd runs this system, sd_booted(3); else it reads what it finds at its start."""
    return (ROOT / "run/systemd/system").is_dir()


def create_user(file_name: str) -> None:
    """Have the users of a file in sysusers.d be there."""
    _call("systemd-sysusers", file_name)


def remove_user(name: str) -> None:
    """Have it be gone; what it owned stays."""
    _call("userdel", name)


def enable(unit: str) -> None:
    """Have the unit started with the system."""
    _call("systemctl", "--quiet", "enable", unit)


def disable(unit: str) -> None:
    """Have it started no more, and stop it now."""
    if is_running():
        _call("systemctl", "stop", unit)
    _call("systemctl", "--quiet", "disable", unit)


def reread() -> None:
    """Have unit files read again."""
    if is_running():
        _call("systemctl", "daemon-reload")


def restart(unit: str) -> None:
    """Start the unit anew; returns when it is ready, and raises ServiceError where it is not."""
    if show(unit).get("ActiveState") == "failed":  # or starts that failed before would count
        _call("systemctl", "reset-failed", unit)
    _call("systemctl", "restart", unit, hint=f"`journalctl -u {unit}` says why")


def show(unit: str) -> dict[str, str]:
    """PROPERTIES of a unit; empty where systemd does not run."""
    if not is_running():
        return {}
    told = _call("systemctl", "show", unit, f"--property={','.join(PROPERTIES)}")
    rows = (line.partition("=") for line in told.splitlines())
    return {name: value for name, _, value in rows}


def _call(*command: str, hint: str = "") -> str:
    if shutil.which(command[0]) is None:
        raise ServiceError(f"{command[0]} is not here: apt-get install systemd passwd")
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"`{' '.join(command)}` did not end: {error}") from error
    if ran.returncode:
        words = " ".join(ran.stderr.split()) or f"exit status {ran.returncode}"
        raise ServiceError(f"`{' '.join(command)}` failed: {hint or words}")
    return ran.stdout
