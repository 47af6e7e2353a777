"""What do the kernels of own ops move and take, beside what they must?

    python benchmarks/kernels.py

On a machine with an NVIDIA GPU: 28 layers of attention to 4,096 slots each, in one CUDA graph so
that they do not fit the L2 cache, beside PyTorch's scaled dot product attention on the same data,
and as a share of the bandwidth that copying reaches. Without one: the bytes that are counted, and
small shapes in Triton's interpreter, which says nothing about time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from measuring import record

from tightrope.plugins.expressions import evaluate
from tightrope.plugins.kernels.source import find
from tightrope.plugins.ops import ops
from tightrope.plugins.slot_attention.policies import POLICIES

LAYERS, SLOTS = 28, 4096
KV_HEADS, GROUP, HEAD_DIM = 8, 2, 128
TESTS = Path(__file__).parent.parent / "tests/plugins"
EPOCHS = 20


def attention_bytes(slots: int) -> dict[str, int]:
    """Of one token's attention in one layer: what must be moved, and what is."""
    heads, splits = KV_HEADS * GROUP, (slots + 256) // 256
    caches = 2 * 2 * KV_HEADS * slots * HEAD_DIM
    scores = 4 * 4 * KV_HEADS * slots  # scores and positions, read and written
    logits, positions = 4 * heads * slots, 4 * KV_HEADS * slots
    shares = 4 * heads * splits * (HEAD_DIM + 2)
    return {"floor": caches + scores, "moved": caches + scores + positions + 2 * (logits + shares)}


def layer(slots: int) -> dict[str, Any]:
    """Arguments by name of one layer's call, all slots but one taken, on the GPU."""
    description, heads = ops()["SlotAttention"], KV_HEADS * GROUP
    sizes = {"N": 1, "Hq": heads, "Hkv": KV_HEADS, "S": 1, "D": HEAD_DIM, "U": slots, "C": slots}
    for name, text in description.sizes.items():
        sizes[name] = evaluate(text, sizes)

    def halves(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", dtype=torch.float16)

    def whole(value: int, *shape: int) -> Any:
        return torch.full(shape, value, device="cuda", dtype=torch.int32)

    position = torch.arange(slots, device="cuda", dtype=torch.int32).repeat(1, KV_HEADS, 1)
    score = torch.rand(1, KV_HEADS, slots, device="cuda")
    buffers = {
        each.name: torch.empty(evaluate(each.nbytes, sizes) // 4, device="cuda")
        for each in description.buffers
    }
    return {
        **{"query": halves(1, heads, 1, HEAD_DIM), "out": halves(1, heads, 1, HEAD_DIM)},
        **{name: halves(1, KV_HEADS, 1, HEAD_DIM) for name in ("key", "value")},
        **{name: halves(1, KV_HEADS, slots, HEAD_DIM) for name in ("slot_key", "slot_value")},
        **{"slot_score": score, "next_slot_score": score.clone()},
        **{"slot_position": position, "next_slot_position": position.clone()},
        **{name: whole(slots, 1, 1) for name in ("query_position", "query_reach")},
        **{
            "target": whole(0, 1, KV_HEADS, 1),
            "scale": HEAD_DIM**-0.5,
            "softcap": 0.0,
            "window": 0,
        },
        "kv_budget": torch.full((KV_HEADS,), slots, device="cuda"),
        "policy": torch.tensor(POLICIES["h2o"].vector(4, 16), device="cuda"),
        **buffers,
        **sizes,
    }


def attend(values: dict[str, Any]) -> None:
    """Queue one layer's two kernels."""
    for kernel in ("slot_attention_step_d{D}", "slot_attention_combine_d{D}"):
        source, fixed = find(kernel.format_map(values))
        grid = tuple(evaluate(axis, values) for axis in source.grid)
        given = [values[name] for name in source.signature]
        source.function[grid](*given, **fixed, num_warps=source.warps)


def milliseconds(work: Callable[[], None]) -> float:
    """Of one run in a CUDA graph: the median of several."""
    work()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return float(triton.testing.do_bench(graph.replay, rep=100 * EPOCHS, return_mode="median"))


def on_gpu() -> dict[str, Any]:
    """Times and bandwidths of attention, torch's and ours."""
    block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    to = torch.empty_like(block)
    copied = 2 * block.numel() / milliseconds(lambda: to.copy_(block)) / 1e6
    layers = [layer(SLOTS) for _ in range(LAYERS)]

    def ours() -> None:
        for each in layers:
            attend(each)

    def theirs() -> None:
        for each in layers:
            torch.nn.functional.scaled_dot_product_attention(
                each["query"], each["slot_key"], each["slot_value"], enable_gqa=True
            )

    took, torch_took = milliseconds(ours), milliseconds(theirs)
    moved = LAYERS * attention_bytes(SLOTS)["floor"] / took / 1e6
    attended = layers[0]["out"].float()
    keys, values = (
        torch.cat([layers[0][f"slot_{name}"], layers[0][name]], 2)
        .float()
        .repeat_interleave(GROUP, 1)
        for name in ("key", "value")
    )
    exact = torch.nn.functional.scaled_dot_product_attention(
        layers[0]["query"].float(), keys, values
    )
    return {
        "device": torch.cuda.get_device_name(),
        "copy_gb_s": copied,
        "attention_ms": took,
        "sdpa_ms": torch_took,
        "share_of_copy": moved / copied,
        "difference": float((attended - exact).abs().max() / exact.abs().max()),
    }


def interpreted() -> dict[str, float]:
    """The largest difference of each op's outputs from its reference, in Triton's interpreter."""
    files = sorted(TESTS.glob("*/kernel_cases.py"))
    command = [sys.executable, str(TESTS / "kernels/interpreted.py"), *map(str, files)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    worst: dict[str, float] = {}
    for name, outputs in json.loads(run.stdout).items():
        op = name.partition(":")[0]
        worst[op] = max(worst.get(op, 0.0), *outputs.values())
    return worst


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    counted = {"one_token_bytes": attention_bytes(SLOTS)}
    if torch.cuda.is_available():
        record("kernels", {**counted, **on_gpu()})
    else:
        print("no NVIDIA GPU: nothing is timed or recorded; small shapes in Triton's interpreter")
        print(json.dumps({**counted, "differences": interpreted()}, indent=1))
