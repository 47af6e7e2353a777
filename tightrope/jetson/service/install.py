"""Putting a service in place and away again: what is so already is left as it is.

    /etc/sysusers.d/NAME.conf            its user
    /etc/systemd/system/NAME.service     its unit
    /var/lib/NAME                        its state, and bundles for whoever puts them there: stays

A unit or a user of that name that something else made is never touched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import InputError
from tightrope.jetson.probe import ROOT
from tightrope.jetson.service import systemd
from tightrope.jetson.service.config import ServiceConfig, check_name, out_of_reach
from tightrope.jetson.service.devices import gpu_devices, gpu_groups
from tightrope.jetson.service.unit import MARK, sysusers_text, unit_text
from tightrope.state import write_whole

_UNIT_FOLDERS = (
    *("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system"),
    *("usr/lib/systemd/system", "lib/systemd/system"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A name, and where what belongs to it lies."""

    name: str
    root: Path = ROOT

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def unit_file(self) -> Path:
        return self.root / "etc/systemd/system" / self.unit

    @property
    def user_file(self) -> Path:
        return self.root / "etc/sysusers.d" / f"{self.name}.conf"

    @property
    def state(self) -> Path:
        return self.root / "var/lib" / self.name

    @property
    def is_installed(self) -> bool:
        """Whether the unit is there, and ours."""
        return _is_ours(self.unit_file)

    def refuse_others(self) -> None:
        """Raises InputError where a unit or a user of this name is not ours."""
        check_name(self.name)
        for folder in _UNIT_FOLDERS:
            file = self.root / folder / self.unit
            if file.exists() and not _is_ours(file):
                raise InputError(
                    f"name is {self.name!r}, and {file} was not written by `tightrope service "
                    "install`; choose another --name, or remove that unit yourself"
                )
        if not self.user_file.exists() and self.name in _users(self.root):
            raise InputError(
                f"name is {self.name!r}, and there is a user of that name for something else; "
                "choose another --name"
            )


def plan(config: ServiceConfig, root: Path = ROOT) -> dict[Path, str]:
    """What installing would write; raises InputError where the name is somebody else's."""
    service = Service(name=config.name, root=root)
    service.refuse_others()
    return {
        service.user_file: sysusers_text(config.name),
        service.unit_file: unit_text(config, gpu_devices(root), gpu_groups(root)),
    }


def install(config: ServiceConfig) -> list[str]:
    """Write, enable and start the service; returns what was done, nothing where all was so.

    Raises InputError for a name that is somebody else's, for what a service would not see and where
    files cannot be written, and ServiceError where systemd refuses or it does not become ready.
    """
    service = Service(name=config.name)
    if sentences := out_of_reach(config):
        raise InputError(sentences[0])
    done = [f"wrote {file}" for file, text in plan(config).items() if _wrote(file, text)]
    if config.name not in _users(ROOT):
        systemd.create_user(service.user_file.name)
        done.append(f"made the user {config.name}")
    if not (service.unit_file.parent / "multi-user.target.wants" / service.unit).is_symlink():
        systemd.enable(service.unit)
        done.append(f"enabled {service.unit}")
    if not systemd.is_running():
        return done
    if done:
        systemd.reread()
    if done or systemd.show(service.unit).get("ActiveState") != "active":
        systemd.restart(service.unit)
        done.append(f"started {service.unit}, which is ready")
    return done


def uninstall(name: str) -> list[str]:
    """Stop the service and remove it, its user too; returns what was done.

    State and bundles stay. Raises as `install` does.
    """
    service = Service(name=name)
    service.refuse_others()
    done = []
    if service.is_installed and not os.access(service.unit_file.parent, os.W_OK):
        raise _closed(service.unit_file, PermissionError())
    if service.is_installed:
        systemd.disable(service.unit)
        _remove(service.unit_file)
        systemd.reread()
        done.append(f"stopped and removed {service.unit}")
    if _is_ours(service.user_file):
        _remove(service.user_file)
        if name in _users(ROOT):
            systemd.remove_user(name)
        done.append(f"removed the user {name}")
    return done


def _is_ours(file: Path) -> bool:
    try:
        return file.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False


def _users(root: Path) -> set[str]:
    try:
        lines = (root / "etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[0] for line in lines}


def _wrote(file: Path, text: str) -> bool:
    """Whether it was not so already."""
    try:
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace") == text:
            return False
        write_whole(file, text)
        file.chmod(0o644)
    except OSError as error:
        raise _closed(file, error) from error
    return True


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except OSError as error:
        raise _closed(file, error) from error


def _closed(file: Path, error: OSError) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{file} may not be changed by this user; run it with sudo")
    return InputError(
        f"{file} cannot be changed ({error.strerror}); make room, or mount it writable"
    )
