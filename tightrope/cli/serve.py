"""`tightrope serve`: OpenAI's interface over HTTP."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from tightrope.cli.options import Backend, MaxTemp, MaxWatts, Threads, option
from tightrope.configs import default_of
from tightrope.runtime.ceiling import ceiling_of
from tightrope.runtime.server.config import ServeConfig


def serve(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE", help="A folder that `tightrope export` wrote; several may be given."
        ),
    ],
    host: Annotated[str, option(ServeConfig, "host", metavar="ADDRESS")] = default_of(
        ServeConfig, "host"
    ),
    port: Annotated[int, option(ServeConfig, "port", metavar="N")] = default_of(
        ServeConfig, "port"
    ),
    api_keys: Annotated[Path | None, option(ServeConfig, "api_keys", metavar="FILE")] = None,
    images: Annotated[Path | None, option(ServeConfig, "images", metavar="FOLDER")] = None,
    fetch: Annotated[
        list[str] | None, option(ServeConfig, "fetch", metavar="HOST", repeated=True)
    ] = None,
    tls_certificate: Annotated[
        Path | None, option(ServeConfig, "tls_certificate", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, option(ServeConfig, "tls_key", metavar="FILE")] = None,
    max_body_mb: Annotated[int, option(ServeConfig, "max_body_mb", metavar="N")] = default_of(
        ServeConfig, "max_body_mb"
    ),
    max_image_mb: Annotated[int, option(ServeConfig, "max_image_mb", metavar="N")] = default_of(
        ServeConfig, "max_image_mb"
    ),
    max_images: Annotated[int, option(ServeConfig, "max_images", metavar="N")] = default_of(
        ServeConfig, "max_images"
    ),
    max_megapixels: Annotated[int, option(ServeConfig, "max_megapixels", metavar="N")] = default_of(
        ServeConfig, "max_megapixels"
    ),
    max_tokens: Annotated[int, option(ServeConfig, "max_tokens", metavar="N")] = default_of(
        ServeConfig, "max_tokens"
    ),
    max_answers: Annotated[int, option(ServeConfig, "max_answers", metavar="N")] = default_of(
        ServeConfig, "max_answers"
    ),
    queue: Annotated[int, option(ServeConfig, "queue", metavar="N")] = default_of(
        ServeConfig, "queue"
    ),
    queue_per_client: Annotated[
        int, option(ServeConfig, "queue_per_client", metavar="N")
    ] = default_of(ServeConfig, "queue_per_client"),
    memory_mb: Annotated[int | None, option(ServeConfig, "memory_mb", metavar="N")] = None,
    chunk_ms: Annotated[int, option(ServeConfig, "chunk_ms", metavar="N")] = default_of(
        ServeConfig, "chunk_ms"
    ),
    backend: Backend = "auto",
    threads: Threads = None,
    max_temp: MaxTemp = None,
    max_watts: MaxWatts = None,
) -> None:
    """Answer over HTTP as OpenAI's interface does, with deadlines, until it is told to stop."""
    config = ServeConfig(
        host=host,
        port=port,
        api_keys=api_keys,
        images=images,
        fetch=tuple(fetch or ()),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        max_body_mb=max_body_mb,
        max_image_mb=max_image_mb,
        max_images=max_images,
        max_megapixels=max_megapixels,
        max_tokens=max_tokens,
        max_answers=max_answers,
        queue=queue,
        queue_per_client=queue_per_client,
        memory_mb=memory_mb,
        chunk_ms=chunk_ms,
    )
    from tightrope.runtime.server.serve import Server

    _log()
    ceiling = ceiling_of(max_temp, max_watts)
    server = Server(bundles, config, backend=backend, threads=threads, ceiling=ceiling)
    _say(f"listening on {server.address}, loading")
    server.run(ready=lambda: _say("ready"))


def _log() -> None:
    """To the journal, with fields, where it listens; else what is wrong to the terminal."""
    from logging_journald import JournaldLogHandler, check_journal_stream

    if check_journal_stream():
        handler = JournaldLogHandler(identifier="tightrope", use_message_id=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
