"""`tightrope profile-worker`: measure on this machine for a scheduler."""

from __future__ import annotations

from typing import Annotated

import typer

from tightrope.cli.options import Backend, BundlePath, Threads, Unencrypted


def profile_worker(
    bundle: BundlePath,
    scheduler: Annotated[
        str, typer.Option(metavar="tls://HOST:PORT", help="Where `dask scheduler` runs.")
    ],
    unencrypted: Unencrypted = False,
    backend: Backend = "auto",
    threads: Threads = None,
) -> None:
    """Measure on this machine for `tightrope profile --scheduler`, until the scheduler goes."""
    import tightrope
    from tightrope.profiles.boards.worker import serve

    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    serve(
        scheduler,
        model,
        unencrypted=unencrypted,
        ready=lambda name: print(f"ready: {name}", flush=True),
    )
