"""`tightrope frontier report`: the frontier as a page, and its plots as images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tightrope.cli.options import Backend, BundlePath, Images, Json, Question, Task, Threads
from tightrope.cli.output import bytes_text, print_json
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.schemas import versioned


def report(
    bundle: BundlePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Also write each plot as PNG and SVG there."),
    ] = None,
    task: Task = None,
    prompt: Question = None,
    image: Images = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write one HTML page: quality against cost, what a deadline buys, and where it comes from."""
    with reaching("output", output):
        if output.is_dir():
            raise InputError(f"output {str(output)!r} is a folder; accepted: a file to write")
    if images is not None:
        with reaching("images", images):
            if images.exists() and not images.is_dir():
                raise InputError(f"images {str(images)!r} is no folder; accepted: one to write to")

    import vl_convert  # noqa: F401  # an extra: whoever lacks it is told before a model is loaded

    import tightrope
    from tightrope.profiles.frontier.report.images import write_images
    from tightrope.profiles.frontier.report.page import write_page
    from tightrope.profiles.frontier.report.plots import plots
    from tightrope.profiles.frontier.report.report import make_report
    from tightrope.profiles.frontier.typical import typical

    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    made = make_report(model, typical(model, prompt, image or []), task=task)
    drawn = plots(made)
    write_page(made, drawn, output)
    written = [] if images is None else write_images(drawn, images)
    size = output.stat().st_size
    if json:
        files = {"page": str(output), "bytes": size, "images": [str(file) for file in written]}
        print_json(versioned("report", files))
        return
    print(f"written to {output}, {bytes_text(size)}")
    for file in written:
        print(f"           {file}")
