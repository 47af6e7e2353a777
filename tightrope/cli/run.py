"""`tightrope run`: ask a bundle one question, or talk with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tightrope.cli.count import print_count
from tightrope.cli.options import (
    Backend,
    BestEffort,
    BundlePath,
    Deadline,
    Energy,
    FirstToken,
    Frames,
    Images,
    Json,
    KeepText,
    KvBudget,
    MaxTemp,
    MaxWatts,
    MinQuality,
    PlanTask,
    Policy,
    Recent,
    Resolution,
    Selector,
    Sinks,
    Thinking,
    ThinkingTokens,
    budget_of,
    operating_point,
    option,
    parse_frames,
    parse_logit_bias,
    parse_thinking,
)
from tightrope.cli.output import print_json, print_pairs
from tightrope.cli.plan import plan_rows, spent_rows
from tightrope.configs import default_of
from tightrope.errors import BudgetUnreachable, InputError
from tightrope.folders import reaching
from tightrope.runtime.ceiling import ceiling_of
from tightrope.runtime.options import Options

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model


def run(
    bundle: BundlePath,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="Left out: read from standard input.")
    ] = None,
    image: Images = None,
    frame: Frames = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before the question.")
    ] = None,
    selector: Selector = None,
    keep: KeepText = None,
    policy: Policy = None,
    kv_budget: KvBudget = None,
    resolution: Resolution = None,
    sinks: Sinks = None,
    recent: Recent = None,
    deadline: Deadline = None,
    first_token: FirstToken = None,
    energy: Energy = None,
    min_quality: MinQuality = None,
    plan_task: PlanTask = None,
    best_effort: BestEffort = False,
    max_temp: MaxTemp = None,
    max_watts: MaxWatts = None,
    thinking: Thinking = None,
    thinking_tokens: ThinkingTokens = None,
    max_tokens: Annotated[int, option(Options, "max_tokens", metavar="N")] = default_of(
        Options, "max_tokens"
    ),
    temperature: Annotated[float, option(Options, "temperature", metavar="X")] = default_of(
        Options, "temperature"
    ),
    top_p: Annotated[float, option(Options, "top_p", metavar="X")] = default_of(Options, "top_p"),
    top_k: Annotated[int, option(Options, "top_k", metavar="N")] = default_of(Options, "top_k"),
    min_p: Annotated[float, option(Options, "min_p", metavar="X")] = default_of(Options, "min_p"),
    repetition_penalty: Annotated[
        float, option(Options, "repetition_penalty", metavar="X")
    ] = default_of(Options, "repetition_penalty"),
    presence_penalty: Annotated[
        float, option(Options, "presence_penalty", metavar="X")
    ] = default_of(Options, "presence_penalty"),
    frequency_penalty: Annotated[
        float, option(Options, "frequency_penalty", metavar="X")
    ] = default_of(Options, "frequency_penalty"),
    logit_bias: Annotated[
        list[str] | None, option(Options, "logit_bias", metavar="ID=X", repeated=True)
    ] = None,
    logprobs: Annotated[int | None, option(Options, "logprobs", metavar="N")] = None,
    seed: Annotated[int, option(Options, "seed", metavar="N")] = default_of(Options, "seed"),
    n: Annotated[int, option(Options, "n", "--n", metavar="N")] = default_of(Options, "n"),
    stop: Annotated[
        list[str] | None, option(Options, "stop", metavar="TEXT", repeated=True)
    ] = None,
    backend: Backend = "auto",
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", metavar="", help="One question a line until the end; /image PATH, /quit."
        ),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", metavar="", help="Add what was spent and how long it took.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar="", help="Tell tokens, slots and predicted time; answer nothing."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Ask a bundle a question about text and images, and print the answer as it comes."""
    point = operating_point(
        selector=selector,
        keep=keep,
        policy=policy,
        kv_budget=kv_budget,
        resolution=resolution,
        sinks=sinks,
        recent=recent,
        thinking_tokens=thinking_tokens,
    )
    budget = budget_of(
        deadline=deadline,
        first_token=first_token,
        energy=energy,
        min_quality=min_quality,
        task=plan_task,
        best_effort=best_effort,
    )
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "logit_bias": parse_logit_bias(logit_bias),
        "logprobs": logprobs,
        "seed": seed,
        "stop": stop,
        "thinking": parse_thinking(thinking),
        "budget": budget,
        "point": point,
    }
    if logprobs is not None and not json:
        raise InputError("--logprobs tells how likely tokens were in JSON; give --json beside it")
    images, frames = list(image or ()), parse_frames(frame)
    if chat and (json or n != 1):
        raise InputError("--chat streams one answer after another; it takes neither --json nor --n")
    ceiling = ceiling_of(max_temp, max_watts)
    if ceiling is not None and budget is None:
        raise InputError(
            "--max-temp and --max-watts are kept by planning, but there is no budget; accepted: "
            "--deadline, --first-token, --energy or --min-quality beside them"
        )
    if dry_run and (chat or n != 1):
        raise InputError("--dry-run tells of one answer; it takes neither --chat nor --n")
    if not chat and question is None:
        question = _question_from_stdin()

    import tightrope

    model = tightrope.load(bundle, backend=backend, ceiling=ceiling)
    if chat:
        first = [question] if question else []
        _chat(model, first, images, frames, system=system, options=options, explain=explain)
        return
    prompt: Any = question
    if system is not None:
        prompt = [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
        ]
    if dry_run:
        spent = model.count(
            prompt,
            images,
            frames=frames,
            max_tokens=max_tokens,
            thinking=options["thinking"],
            budget=budget,
            point=point,
        )
        print_count(spent, json=json)
        return
    if json or n != 1:
        answer = model.generate(prompt, images=images, frames=frames, n=n, **options)
        _print_finished(answer, json=json)
    else:
        answer = _print_streamed(model.stream(prompt, images=images, frames=frames, **options))
    if explain:
        _explain(answer)


def _question_from_stdin() -> str:
    question = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    if not question:
        raise InputError("QUESTION is missing; accepted: an argument, standard input, or --chat")
    return question


def _print_streamed(pieces: Iterator[Any]) -> Answer:
    answer: Answer | None = None
    for piece in pieces:
        print(piece.text, end="", flush=True)
        answer = piece.answer or answer
    print()
    assert answer is not None, "a stream's last piece carries the answer"
    return answer


def _print_finished(answer: Answer, *, json: bool) -> None:
    if json:
        print_json(answer.to_dict())
        return
    print("\n---\n".join(sample.text for sample in answer.samples or (answer,)))


def _chat(
    model: Model,
    first: list[str],
    images: list[str],
    frames: list[tuple[float, str]],
    *,
    system: str | None,
    options: dict[str, Any],
    explain: bool,
) -> None:
    conversation = model.chat(system=system)
    for line in _turns(first):
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/image":
            images += _existing(rest.strip())
            continue
        try:
            pieces = conversation.stream(line, images=images, frames=frames, **options)
        except BudgetUnreachable as error:  # the next question may find an idle machine
            print(error, file=sys.stderr)
            continue
        answer = _print_streamed(pieces)
        images, frames = [], []
        if explain:
            _explain(answer)


def _turns(first: list[str]) -> Iterator[str]:
    yield from first
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _existing(name: str) -> list[str]:
    """The image of this name, or none with a sentence: a slip must not end a conversation."""
    if name[:5].lower() == "data:":
        return [name]
    try:
        with reaching("/image", Path(name)):
            path = Path(name).expanduser()
            if path.is_file():
                return [str(path)]
        print(f"/image is {name!r}; accepted: the path of an image file", file=sys.stderr)
    except InputError as error:
        print(error, file=sys.stderr)
    return []


def _explain(answer: Answer) -> None:
    """Point, usage, timings and notes, on standard error so that the answer stays alone.

    The names are those of `--json`; what was left open and stayed so is left out.
    """
    told = answer.to_dict()
    rows = [("backend", answer.backend), ("finished", answer.finish_reason)]
    if answer.stop is not None:
        token = "" if answer.stop.token_id is None else f" (token {answer.stop.token_id})"
        rows.append(("stopped by", f"{answer.stop.text!r}{token}"))
    for part in ("point", "usage", "timings"):
        values = (told.get(part) or {}).items()
        rows += [(name, _shown(value)) for name, value in values if value is not None]
    if answer.plan is not None:
        rows += plan_rows(answer.plan)
    if answer.spent is not None:
        rows += spent_rows(answer.spent)
    if answer.deadline_met is not None:
        rows.append(("deadline met", "yes" if answer.deadline_met else "no"))
    rows += [("note", note) for note in told.get("notes") or ()]
    print_pairs("", rows, to_stderr=True)


def _shown(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
