"""`tightrope service`: a service of systemd that answers over HTTP, put in place and away again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tightrope.bundle import Manifest, read_manifest
from tightrope.checks import check_path
from tightrope.cli.options import Backend, Json, Threads, option
from tightrope.cli.output import gibibytes, print_json, print_pairs
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.jetson.probe import read_machine
from tightrope.jetson.service import systemd
from tightrope.jetson.service.config import ServiceConfig, check_name, out_of_reach
from tightrope.jetson.service.install import Service, plan
from tightrope.jetson.service.install import install as install_service
from tightrope.jetson.service.install import uninstall as uninstall_service
from tightrope.runtime.memory import PROCESS_BYTES, planned_bytes
from tightrope.runtime.server.config import GOODBYE_SECONDS, ServeConfig
from tightrope.schemas import versioned

app = typer.Typer(no_args_is_help=True, help="Answer over HTTP as a service of systemd.")

_MARGIN_S = 10
"""Between the last answer's end and the time at which a service is killed."""
_MOST_OF_MEMORY = 0.9
"""The share of a machine's memory that its service may have."""

Name = Annotated[str, option(ServiceConfig, "name", metavar="NAME")]
_NAME = default_of(ServiceConfig, "name")


@app.command()
def install(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(metavar="BUNDLE", help="What `tightrope export` wrote; may be repeated."),
    ] = None,
    name: Name = _NAME,
    host: Annotated[str, option(ServeConfig, "host", metavar="ADDRESS")] = default_of(
        ServeConfig, "host"
    ),
    port: Annotated[int, option(ServeConfig, "port", metavar="N")] = default_of(
        ServeConfig, "port"
    ),
    api_keys: Annotated[Path | None, option(ServeConfig, "api_keys", metavar="FILE")] = None,
    images: Annotated[Path | None, option(ServeConfig, "images", metavar="FOLDER")] = None,
    tls_certificate: Annotated[
        Path | None, option(ServeConfig, "tls_certificate", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, option(ServeConfig, "tls_key", metavar="FILE")] = None,
    watchdog: Annotated[int, option(ServiceConfig, "watchdog_s", metavar="SECONDS")] = default_of(
        ServiceConfig, "watchdog_s"
    ),
    backend: Backend = "auto",
    threads: Threads = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="Print what would be written, change nothing."),
    ] = False,
) -> None:
    """Write, enable and start a unit that serves bundles; what is so already is left as it is."""
    serve = ServeConfig(
        host=host,
        port=port,
        api_keys=api_keys,
        images=images,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )
    config = _config(name, bundle or [], serve, watchdog, backend, threads)
    if dry_run:
        for sentence in out_of_reach(config):
            print(f"warning: {sentence}", file=sys.stderr)
        for file, text in plan(config).items():
            print(f"# {file}\n{text}")
        return
    _tell(install_service(config), f"{name} is installed as it was asked for")


@app.command()
def status(name: Name = _NAME, json: Json = False) -> None:
    """Tell whether the service is installed and answers; exit code 0 where it does, else 1."""
    service = Service(name=name)
    service.refuse_others()
    shown = systemd.show(service.unit) if service.is_installed else {}
    active = shown.get("ActiveState") == "active"
    if json:
        found = {"name": name, "installed": service.is_installed, "active": active, "unit": shown}
        print_json(versioned("service", found))
    else:
        rows = [("installed", "yes" if service.is_installed else "no"), *shown.items()]
        print_pairs(f"{service.unit}: {'answers' if active else 'does not answer'}", rows)
    raise typer.Exit(0 if active else 1)


@app.command()
def uninstall(name: Name = _NAME) -> None:
    """Stop the service and remove its unit and its user; state and bundles stay."""
    _tell(uninstall_service(name), f"{name} is not installed")
    state = Service(name=name).state
    if state.is_dir():
        print(f"left: {state}")


def _config(
    name: str,
    bundles: list[Path],
    serve: ServeConfig,
    watchdog: int,
    backend: str,
    threads: int | None,
) -> ServiceConfig:
    check_name(name)
    manifests = []
    for path in bundles:
        check_path("bundle", path, "the folder that `tightrope export` wrote")
        with reaching("bundle", path):
            manifests.append(read_manifest(Path(os.path.abspath(path))))
    given = {
        "api-keys": serve.api_keys,
        "tls-certificate": serve.tls_certificate,
        "tls-key": serve.tls_key,
    }
    files = {option: Path(os.path.abspath(file)) for option, file in given.items() if file}
    for option_name, file in files.items():
        with reaching(option_name, file):
            if not file.is_file():
                raise InputError(f"{option_name} is {file}, and there is no such file")
    most = _memory_max(manifests, backend)
    options = [f"--host={serve.host}", f"--port={serve.port}", f"--memory-mb={most // 10**6}"]
    options.append(f"--backend={backend}")
    if threads is not None:
        options.append(f"--threads={threads}")
    images = None if serve.images is None else Path(os.path.abspath(serve.images))
    if images is not None:
        options.append(f"--images={images}")
    return ServiceConfig(
        name=name,
        command=(sys.executable, "-m", "tightrope"),
        bundles=tuple(Path(os.path.abspath(path)) for path in bundles),
        options=tuple(options),
        credentials=files,
        images=images,
        memory_max_bytes=most,
        stop_s=GOODBYE_SECONDS + _MARGIN_S,
        watchdog_s=watchdog,
    )


def _memory_max(manifests: list[Manifest], backend: str) -> int:
    """Room for all bundles, and for one that takes another's place, where the machine has it."""
    planned = [planned_bytes(manifest, backend) for manifest in manifests]
    needed = PROCESS_BYTES + sum(planned)
    total = read_machine().memory_bytes or needed * 2
    most = int(_MOST_OF_MEMORY * total)
    if needed > most:
        print(
            f"warning: the bundles may take {gibibytes(needed)}, of {gibibytes(total)} that this "
            "machine has; export with fewer --slots, or in int4",
            file=sys.stderr,
        )
    return min(needed + max(planned, default=0), most)


def _tell(done: list[str], nothing: str) -> None:
    for line in done or [nothing]:
        print(line)
