"""The `tightrope` command: one subcommand, one file.

A subcommand parses, builds one config, calls one function and prints. It imports the part that
does the work inside its function, so that `tightrope doctor` starts without torch.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import tightrope
from tightrope.cli.bench import bench
from tightrope.cli.build import build
from tightrope.cli.doctor import doctor
from tightrope.cli.export import export
from tightrope.cli.frontier import app as frontier_app
from tightrope.cli.inspect import inspect
from tightrope.cli.kernels import app as kernels_app
from tightrope.cli.methods import methods
from tightrope.cli.profile import profile
from tightrope.cli.profile_worker import profile_worker
from tightrope.cli.run import run
from tightrope.cli.selftest import selftest
from tightrope.cli.serve import serve
from tightrope.cli.service import app as service_app
from tightrope.cli.task import app as task_app
from tightrope.errors import BudgetUnreachable, InputError, TightropeError

# What `install the extra` means for a package that is not there.
EXTRAS = {
    "cpu": ("onnxruntime",),
    "export": ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors", "gguf"),
    "check": ("tensorrt_rtx",),
    "serve": ("starlette", "uvicorn", "prometheus_client", "h11", "sdnotify", "logging_journald"),
    "profile": ("vl_convert",),
    "boards": ("distributed",),
    "kernels": ("triton",),
}

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUDGET = 3
EXIT_INTERRUPTED = 130


def report(error: BaseException) -> int:
    """Say on standard error, in one sentence, what went wrong; returns the exit code."""
    if os.environ.get("TIGHTROPE_DEBUG") == "1":
        raise error
    if isinstance(error, KeyboardInterrupt):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal wrote ^C, the shell's prompt goes below it
        return EXIT_INTERRUPTED
    if isinstance(error, TightropeError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and (extra := _extra_of(error)):
        print(
            f"error: this needs the package {error.name}; install Tightrope with its extra "
            f"[{extra}], in a checkout: pip install -e '.[{extra}]'",
            file=sys.stderr,
        )
    else:
        print(
            f"internal error: {type(error).__name__}: {error}; "
            "set TIGHTROPE_DEBUG=1 to see where it came from",
            file=sys.stderr,
        )
    if isinstance(error, InputError):
        return EXIT_USAGE
    return EXIT_BUDGET if isinstance(error, BudgetUnreachable) else EXIT_FAILED


def main() -> None:
    """Run the command; no error of ours or of a dependency reaches the user as a traceback."""
    try:
        app(prog_name="tightrope")
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(report(error))


def _extra_of(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


class _Subcommands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        # Typer itself would turn both into "Aborted!", and an EOFError is no wish of the user's.
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise typer.Exit(report(error)) from error


app = typer.Typer(
    name="tightrope",
    cls=_Subcommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Vision-language and language models on Jetson, inside a latency budget.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tightrope {tightrope.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, metavar="", help="Print it."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def demo() -> None:
    """Export the reference model, ask it about pictures, and show what pruning buys."""
    from tightrope.cli.demo import run_demo

    run_demo()


_COMMANDS = (
    *(export, inspect, build, selftest, run, serve, bench, profile, profile_worker, methods),
    doctor,
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(frontier_app, name="frontier")
app.add_typer(kernels_app, name="kernels")
app.add_typer(service_app, name="service")
app.add_typer(task_app, name="task")
