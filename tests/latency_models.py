"""Latency models and workloads that are no measurement: tests know what they must say."""

from __future__ import annotations

from tightrope.latency import (
    PERCENTS,
    Decoding,
    Hosting,
    LatencyModel,
    PrefillCall,
    Prefilling,
    Preprocessing,
    Selecting,
    SourceImage,
    Spread,
    Stepping,
    TowerTime,
    Workload,
)
from tightrope.latency_file import HeldOut, LatencyKey, LatencyRecord

SPREAD = Spread(mean=1.02, ratios=tuple(0.9 + percent / 500 for percent in PERCENTS))
MODEL = LatencyModel(
    decoding={
        "JPEG": Decoding(image_ms=0.5, megapixel_ms=4.0, megabyte_ms=10.0),
        "PNG": Decoding(image_ms=1.0, megapixel_ms=30.0, megabyte_ms=2.0),
    },
    preprocessing=Preprocessing(image_ms=0.25, megapixel_ms=3.0, result_megapixel_ms=20.0),
    tower=(TowerTime(resolution=168, image_ms=12.0), TowerTime(resolution=336, image_ms=60.0)),
    selecting={
        "rounds": Selecting(call_ms=1.0, square_ms=0.0, pair_ms=1e-4),
        "ranks": Selecting(call_ms=0.5, square_ms=2e-5, pair_ms=0.0),
    },
    prefilling=Prefilling(
        knots=(0.0, 100.0, 300.0),
        token_ms=(0.1, 0.2, 0.25),
        call_ms=2.0,
        pair_ms=1e-4,
        eviction_ms=3.0,
        given_up_ms=0.01,
        behind_tower_ms=5.0,
        schedules={"inside": 4.0},
        behind_selector_ms={"rounds": 3.0},
    ),
    stepping=Stepping(start_ms=1.0, token_ms=4.0, slot_ms=0.002, eviction_ms=0.5),
    hosting=Hosting(request_ms=1.0, token_ms=0.01),
    ttft=SPREAD,
    tpot=SPREAD,
    total=SPREAD,
)
KEY = LatencyKey(
    bundle="ab" * 32, board="Orin Nano 8GB", power_mode="25W", backend="onnxruntime", threads=2
)
RECORD = LatencyRecord(
    key=KEY,
    date="2026-11-27T12:00:00+00:00",
    points=29,
    requests=400,
    seconds=118.5,
    packages={"numpy": "2.3"},
    held_out=HeldOut(
        ttft_mape_percent=3.0,
        tpot_mape_percent=2.0,
        ttft_above_p95_percent=5.0,
        tpot_above_p95_percent=5.5,
    ),
    model=MODEL,
)


def image(format: str = "JPEG", megapixels: float = 2.0, megabytes: float = 0.5) -> SourceImage:
    """A source of these sizes."""
    return SourceImage(
        format=format,
        width=round(megapixels * 1000),
        height=1000,
        encoded_bytes=round(megabytes * 1e6),
    )


def text(tokens: float, *, completion_tokens: int = 1, context: float | None = None) -> Workload:
    """A prompt that is read in one call."""
    return Workload(
        text_tokens=round(tokens),
        prefill=(PrefillCall(tokens, 0.0),),
        context=tokens if context is None else context,
        most_context=4096.0,
        completion_tokens=completion_tokens,
    )
