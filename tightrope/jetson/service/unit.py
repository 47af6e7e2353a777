"""The text of the unit: systemd.service(5), systemd.exec(5), as of JetPack 6 (systemd 249)."""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.jetson.service.config import ServiceConfig

MARK = "# Written by `tightrope service install`, and by the next one again."
CONFIGURATION_STATUS = 2
"""The exit status of a command that was given something wrong: trying again would not help."""
RESTART_S = 5
TRIES, TRIES_S = 30, 300
"""Starts in so many seconds before it is left alone: a disk that comes late is waited for."""

_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
UMask=0027
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
LimitCORE=0
DevicePolicy=closed"""
# Left open on purpose: /proc/meminfo and /proc/device-tree (ProcSubset); memory that is written and
# run (MemoryDenyWriteExecute), which a driver's compiler needs; groups as they are (PrivateUsers).


def unit_text(config: ServiceConfig, devices: Sequence[str], groups: Sequence[str]) -> str:
    """The unit of a service that may open `devices` and belongs to `groups`."""
    state = f"/var/lib/{config.name}"
    given = [f"--{option}=${{CREDENTIALS_DIRECTORY}}/{option}" for option in config.credentials]
    arguments = [*config.command, "serve", *map(str, config.bundles), *config.options]
    lines = [
        MARK,
        "[Unit]",
        f"Description=Tightrope: {_specifiers(', '.join(path.name for path in config.bundles))}",
        "Wants=network-online.target",
        "After=network-online.target nvpmodel.service",
        f"RequiresMountsFor={' '.join(map(_quoted, map(str, config.bundles)))}",
        f"StartLimitIntervalSec={TRIES_S}",
        f"StartLimitBurst={TRIES}",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join([*map(_argument, arguments), *given])}",
        "ExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'",
        "TimeoutStartSec=90",
        f"TimeoutStopSec={config.stop_s}",
        f"WatchdogSec={config.watchdog_s}",
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        f"RestartPreventExitStatus={CONFIGURATION_STATUS}",
        f"SyslogIdentifier={config.name}",
        f"User={config.name}",
        f"StateDirectory={config.name}",
        "StateDirectoryMode=0755",
        f"Environment=HOME={state} XDG_STATE_HOME={state} PYTHONUNBUFFERED=1",
        *(f"LoadCredential={name}:{_specifiers(str(file))}" for name, file in _files(config)),
        f"MemoryMax={config.memory_max_bytes}",
        # Where memory is short it goes first: it is back in seconds, what else runs may not be.
        "OOMScoreAdjust=200",
        *([f"SupplementaryGroups={' '.join(groups)}"] if groups else []),
        _HARDENING,
        *(f"DeviceAllow={device} rw" for device in devices),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def sysusers_text(name: str) -> str:
    """The service's user, for sysusers.d(5)."""
    return f'{MARK}\nu {name} - "Tightrope" /var/lib/{name}\n'


def _files(config: ServiceConfig) -> list[tuple[str, str]]:
    return [(option, str(file)) for option, file in config.credentials.items()]


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a setting's list, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifiers(escaped)}"'


def _argument(text: str) -> str:
    """One argument of a command, in which $ would stand for a variable."""
    plain = text and all(letter.isalnum() or letter in "/._-=:," for letter in text)
    return text if plain else _quoted(text).replace("$", "$$")
