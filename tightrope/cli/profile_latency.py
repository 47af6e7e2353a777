"""What `tightrope profile` says of latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.cli.output import print_pairs, print_table

if TYPE_CHECKING:
    from tightrope.bundle import Bundle
    from tightrope.latency import LatencyModel
    from tightrope.latency_file import LatencyRecord


def print_latency(bundle: Bundle, record: LatencyRecord) -> None:
    """The model as sums, its spread, how well it foretells what it has not seen, and its file."""
    from tightrope.latency import Estimate
    from tightrope.latency_file import latency_file

    key, held_out = record.key, record.held_out
    print_pairs(
        "Measured",
        [
            ("board", key.board),
            ("power mode", key.power_mode),
            ("backend", f"{key.backend}, {key.threads} threads"),
            ("requests", f"{record.requests} of {record.points} kinds in {record.seconds:.0f} s"),
        ],
    )
    model = record.model
    print_table("\nModel", ("what", "ms"), _model_rows(model))
    columns = ("mean", "p50", "p95", "p99")
    spreads = {"first token": model.ttft, "a token": model.tpot, "in all": model.total}
    print_table(
        "\nSpread, of what the model says",
        ("", *columns),
        [
            (name, *(f"{value:.2f}" for value in Estimate(1.0, spread).to_dict().values()))
            for name, spread in spreads.items()
        ],
        numbers=columns,
    )
    drawn = f"{held_out.drawn} requests drawn at random"
    print_pairs(
        f"\nHeld out: {drawn if held_out.drawn else 'each kind predicted by the others'}",
        [
            ("error of the time to the first token", f"{held_out.ttft_mape_percent:.1f} %"),
            ("error of the time per token", f"{held_out.tpot_mape_percent:.1f} %"),
            ("first tokens above their p95", f"{held_out.ttft_above_p95_percent:.1f} %"),
            ("times per token above their p95", f"{held_out.tpot_above_p95_percent:.1f} %"),
        ],
    )
    if (power := record.power) is not None:
        print_pairs(
            f"\nPower, {power.source}",
            [
                ("idle", f"{power.idle_w:.1f} W"),
                ("images and text, on the host", f"{power.host_w:.1f} W"),
                ("looking and reading", f"{power.read_w:.1f} W"),
                ("writing", f"{power.write_w:.1f} W"),
                ("error of 5 s that it was not fitted to", f"{power.error_percent:.1f} %"),
            ],
            numbers=True,
        )
    else:
        print("\npower: not measured, no sensor tells what the machine draws")
    if record.held_back:
        print(
            f"\nthe board was held back meanwhile ({', '.join(record.held_back)}): cool it, repeat"
        )
    print(f"\nwritten to {latency_file(bundle, key)}")


def _model_rows(model: LatencyModel) -> list[tuple[str, str]]:
    """One line for each part, as a sum of what is counted."""
    rows = [
        (
            f"decode {name}",
            _sum((part.image_ms, ""), (part.megapixel_ms, "megapixels"), (part.megabyte_ms, "MB")),
        )
        for name, part in model.decoding.items()
    ]
    if model.tower:
        scale = model.preprocessing
        text = _sum(
            (scale.image_ms, ""),
            (scale.megapixel_ms, "megapixels"),
            (scale.result_megapixel_ms, "megapixels of the result"),
        )
        rows.append(("preprocess", text))
    rows += [(f"vision at {row.resolution}", _sum((row.image_ms, ""))) for row in model.tower]
    rows += [
        (
            f"select {name}",
            _sum((part.call_ms, ""), (part.square_ms, "V²"), (part.pair_ms, "V · K")),
        )
        for name, part in model.selecting.items()
    ]
    read = model.prefilling
    rows += [
        (f"prefill, tokens from {knot:.0f}", _sum((ms, "tokens")))
        for knot, ms in zip(read.knots, read.token_ms, strict=True)
    ]
    step, host = model.stepping, model.hosting
    return [
        *rows,
        ("prefill, a call", _sum((read.call_ms, ""), (read.pair_ms, "tokens · slots before"))),
        ("prefill, eviction", _sum((read.eviction_ms, ""), (read.given_up_ms, "slots given up"))),
        ("prefill, behind the tower", _sum((read.behind_tower_ms, ""))),
        *(
            (f"prefill, behind {name}", _sum((ms, "")))
            for name, ms in read.behind_selector_ms.items()
        ),
        *((f"prefill, {name}", _sum((ms, "calls"))) for name, ms in read.schedules.items()),
        ("a token", _sum((step.token_ms, ""), (step.slot_ms, "slots"))),
        ("a token that evicts", _sum((step.eviction_ms, ""))),
        ("the first step", _sum((step.start_ms, ""))),
        ("all else", _sum((host.request_ms, ""), (host.token_ms, "tokens of text"))),
    ]


def _sum(*terms: tuple[float, str]) -> str:
    """ "1.2 + 0.031 · megapixels", terms of 0 left out."""
    told = [f"{ms:.3g} · {what}" if what else f"{ms:.3g}" for ms, what in terms if ms]
    return " + ".join(told) or "0"
