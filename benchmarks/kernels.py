"""How near do own kernels come to a GPU's bandwidth, and how near to float32?

    python benchmarks/kernels.py

Each thing is captured in a CUDA graph, with data that no cache holds: decode attention of 28 layers
with 4,096 slots beside PyTorch's SDPA on the same data, a GEMV with four-bit weights counted in
packed bytes, and selection. Without a GPU everything runs in Triton's interpreter on small shapes,
which tells that the program is right and nothing of speed; no result is written then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ON_GPU = torch.cuda.is_available()
if not ON_GPU:  # decided when a kernel's file is imported
    os.environ["TRITON_INTERPRET"] = "1"

from measuring import record, spread  # noqa: E402

from tightrope.plugins.expressions import evaluate  # noqa: E402
from tightrope.plugins.int4_matmul.reference import int4_matmul, pack  # noqa: E402
from tightrope.plugins.kernels.source import find  # noqa: E402
from tightrope.plugins.select_tokens.reference import select_tokens  # noqa: E402
from tightrope.plugins.slot_attention.policies import POLICIES  # noqa: E402
from tightrope.plugins.slot_attention.reference import slot_attention  # noqa: E402

DEVICE = "cuda" if ON_GPU else "cpu"
REPEATS = 100
LAYERS, SLOTS, HEADS, GROUP, WIDTH = (28, 4096, 8, 4, 128) if ON_GPU else (2, 65, 1, 2, 64)
INPUTS, OUTPUTS, WEIGHTS = (4096, 11008, 16) if ON_GPU else (128, 64, 2)
SELECTIONS = ((144, 576), (1024, 8192)) if ON_GPU else ((14, 57), (10, 81))
COPIED = 1 << 30 if ON_GPU else 1 << 16


def launch(name: str, values: dict[str, Any]) -> None:
    """A kernel with values by the names of its arguments and grid, on the current stream."""
    source, fixed = find(name)
    grid = tuple(evaluate(axis, values) for axis in source.grid)
    arguments = [values[argument] for argument in source.signature]
    source.function[grid](*arguments, **fixed, num_warps=source.warps)


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Microseconds of `work` as a CUDA graph; without a GPU it runs once and takes none."""
    work()
    if not ON_GPU:
        return {}
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return spread(times[REPEATS // 10 :])


def error(ours: torch.Tensor, theirs: Any) -> float:
    """The largest difference over the largest number."""
    wanted = torch.as_tensor(theirs)
    return float((ours.cpu().float() - wanted.float()).abs().max() / wanted.float().abs().max())


def rate(figures: dict[str, Any], nbytes: int, copy_rate: float | None) -> dict[str, Any]:
    """`figures` with what of the copy's bandwidth was reached."""
    if not ON_GPU:
        return figures
    reached = nbytes / figures["microseconds"]["median"] / 1e3
    of_copy = {} if copy_rate is None else {"of_copy": reached / copy_rate}
    return {**figures, "bytes": nbytes, "GB_per_s": reached, **of_copy}


def attention_bytes() -> dict[str, int]:
    """Of one token in one layer: what has to be moved, and what our kernels move."""
    heads, splits = HEADS * GROUP, (SLOTS + 256) // 256
    caches = 2 * 2 * HEADS * SLOTS * WIDTH
    scores = 4 * 4 * HEADS * SLOTS  # scores and positions, read and written
    logits, positions = 4 * heads * SLOTS, 4 * HEADS * SLOTS
    shares = 4 * heads * splits * (WIDTH + 2)
    return {"floor": caches + scores, "moved": caches + scores + positions + 2 * (logits + shares)}


def copying() -> dict[str, Any]:
    source = torch.ones(COPIED, dtype=torch.int8, device=DEVICE)
    to = torch.empty_like(source)
    return rate({"microseconds": timed(lambda: to.copy_(source))}, 2 * COPIED, None)


def _layer(seed: int) -> dict[str, Any]:
    """Inputs and outputs of a step over full slots, one of which leaves."""
    torch.manual_seed(seed)
    half = {"dtype": torch.float16, "device": DEVICE}
    single, whole = {**half, "dtype": torch.float32}, {**half, "dtype": torch.int32}
    splits = (SLOTS + 256) // 256
    slots, new = (1, HEADS, SLOTS, WIDTH), (1, HEADS, 1, WIDTH)
    query = (1, HEADS * GROUP, 1, WIDTH)
    ordinals = torch.arange(SLOTS, **whole).expand(1, HEADS, SLOTS).contiguous()
    return {
        "query": torch.randn(query, **half),
        "key": torch.randn(new, **half),
        "value": torch.randn(new, **half),
        "slot_key": torch.randn(slots, **half),
        "slot_value": torch.randn(slots, **half),
        "slot_score": torch.rand(slots[:3], **single),
        "slot_position": ordinals,
        "query_position": torch.full((1, 1), SLOTS, **whole),
        "kv_budget": torch.full((HEADS,), SLOTS, dtype=torch.int64, device=DEVICE),
        "policy": torch.from_numpy(POLICIES["h2o"].vector(4, 16)).to(DEVICE),
        "query_reach": torch.full((1, 1), SLOTS, **whole),
        "shares": torch.empty((1, HEADS * GROUP, splits, WIDTH), **single),
        "peaks": torch.empty((1, HEADS * GROUP, splits, 2), **single),
        "logits": torch.empty((1, HEADS * GROUP, SLOTS + 1), **single),
        "out": torch.empty(query, **half),
        "target": torch.empty((1, HEADS, 1), **whole),
        "next_slot_score": torch.empty(slots[:3], **single),
        "next_slot_position": torch.empty(slots[:3], **whole),
        **{"scale": WIDTH**-0.5, "softcap": 0.0, "window": 0, "splits": splits},
        **{
            "N": 1,
            "Hq": HEADS * GROUP,
            "Hkv": HEADS,
            "G": GROUP,
            "U": SLOTS,
            "C": SLOTS,
            "D": WIDTH,
        },
    }


def decoding(copy_rate: float | None) -> dict[str, Any]:
    """All layers in turn, beside SDPA, which neither scores nor chooses, on the same slots."""
    layers = [_layer(seed) for seed in range(LAYERS)]

    def ours() -> None:
        for layer in layers:
            launch(f"slot_attention_step_d{WIDTH}", layer)
            launch(f"slot_attention_combine_d{WIDTH}", layer)

    def theirs() -> None:
        for layer in layers:
            slots = layer["slot_key"], layer["slot_value"]
            torch.nn.functional.scaled_dot_product_attention(
                layer["query"], *slots, enable_gqa=True
            )

    figures: dict[str, Any] = {"microseconds": timed(ours)}
    inputs = [layers[0][name].cpu().numpy() for name in list(layers[0])[:11]]
    floats = [part.astype(np.float32) if part.dtype == np.float16 else part for part in inputs]
    wanted = slot_attention(*floats, scale=WIDTH**-0.5)
    names = ("out", "target", "next_slot_score", "next_slot_position")
    figures["errors"] = {
        name: error(layers[0][name], each) for name, each in zip(names, wanted, strict=True)
    }
    figures["sdpa_microseconds"] = timed(theirs)
    figures["bytes of a layer"] = attention_bytes()
    return rate(figures, LAYERS * 2 * HEADS * SLOTS * WIDTH * 2, copy_rate)


def multiplying(copy_rate: float | None) -> dict[str, Any]:
    """One row times several weights, so that each is read from memory."""
    rng, calls = np.random.default_rng(0), []
    nothing = torch.empty(0, dtype=torch.float16, device=DEVICE)  # its address is null
    for _ in range(WEIGHTS):
        codes = rng.integers(-8, 8, (INPUTS, OUTPUTS), dtype=np.int8)
        scale = rng.uniform(1e-3, 2e-2, (INPUTS // 32, OUTPUTS)).astype(np.float16)
        x = rng.normal(size=(1, INPUTS)).astype(np.float16)
        arrays = {"x": x, "weight": pack(codes).view(np.int8), "scale": scale}
        tensors = {name: torch.from_numpy(array).to(DEVICE) for name, array in arrays.items()}
        y = torch.empty((1, OUTPUTS), dtype=torch.float16, device=DEVICE)
        sizes = {"rows": 1, "In": INPUTS, "Out": OUTPUTS, "shift": nothing}
        calls.append((tensors | {"y": y} | sizes, int4_matmul(x.astype(np.float32), codes, scale)))

    def all_weights() -> None:
        for values, _ in calls:
            launch("int4_matmul_few_b32", values)

    figures: dict[str, Any] = {"microseconds": timed(all_weights)}
    figures["errors"] = max(error(values["y"], wanted) for values, wanted in calls)
    packed = INPUTS * OUTPUTS // 2 + INPUTS // 32 * OUTPUTS * 2
    return rate(figures, WEIGHTS * packed, copy_rate)


def selecting() -> dict[str, Any]:
    """Each count of candidates by itself: one row whose every token is one."""
    figures = {}
    for keep, count in SELECTIONS:
        score = np.random.default_rng(keep).random((1, count)).astype(np.float32)
        given = {
            "score": torch.from_numpy(score).to(DEVICE),
            "candidates": torch.arange(count, device=DEVICE)[None],
            "index": torch.empty((1, keep), dtype=torch.int64, device=DEVICE),
            "next_candidates": torch.empty((1, keep), dtype=torch.int64, device=DEVICE),
            **{"N": 1, "S": count, "V": count, "K": keep},
        }
        time = timed(lambda given=given: launch("select_tokens", given))  # type: ignore[misc]
        wanted, _ = select_tokens(score, np.arange(count)[None], np.arange(keep))
        right = bool(np.array_equal(given["index"].cpu().numpy(), wanted))
        figures[f"{keep} of {count}"] = {"microseconds": time, "right": right}
    return figures


def main() -> None:
    copy = copying()
    copy_rate = copy.get("GB_per_s")
    figures = {
        "device": torch.cuda.get_device_name() if ON_GPU else "none: Triton's interpreter",
        "copy": copy,
        "decode attention": decoding(copy_rate),
        "four-bit GEMV": multiplying(copy_rate),
        "selection": selecting(),
    }
    if ON_GPU:
        record("kernels", figures)
        return
    print("not run on a GPU: small shapes in Triton's interpreter, errors alone")
    for name in ("decode attention", "four-bit GEMV", "selection"):
        print(f"{name}: {figures[name]}")


if __name__ == "__main__":
    main()
