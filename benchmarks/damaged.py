"""What a thousand damaged and hostile inputs come to: errors of ours, answers, and nothing else.

python benchmarks/damaged.py scenes.bundle

Each input follows from its number alone: files of a bundle with their hashes made right again,
headers of GGUF and safetensors files, images, messages, arguments. They are tried by processes of
their own, one input after another; one that crashes or hangs is counted, and the next process goes
on behind it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from PIL import Image

import tightrope as tr
from tightrope.errors import TightropeError

SECONDS = 20
MEGABYTES = 2048
Rng = np.random.RandomState
Try = Callable[[], Any]


class Inputs:
    """Makes input number N, and what is done with it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle, self.folder = bundle, folder
        self.model = tr.load(bundle, threads=1)
        self.image = Image.fromarray(Rng(0).randint(0, 256, (56, 70, 3)).astype(np.uint8))
        self.checkpoint, self.gguf = folder / "checkpoint", folder / "base.gguf"
        write_checkpoint(self.checkpoint)
        write_gguf(self.gguf)

    def make(self, number: int) -> tuple[str, Try]:
        """The kind of input and the attempt."""
        kinds = {
            "bundle": self._bundle,
            "gguf": self._gguf,
            "safetensors": self._safetensors,
            "image": self._image,
            "messages": self._messages,
            "arguments": self._arguments,
        }
        kind = list(kinds)[number % len(kinds)]
        return kind, kinds[kind](Rng([21, number]))

    def _bundle(self, rng: Rng) -> Try:
        copy = self.folder / "copy.bundle"
        shutil.rmtree(copy, ignore_errors=True)
        manifest = json.loads((self.bundle / "bundle.json").read_text())
        names = [name for name in manifest["files"] if not name.endswith("weights.data")]
        name = [*names, "bundle.json"][rng.randint(len(names) + 1)]
        shutil.copytree(self.bundle, copy, copy_function=os.link)
        content = (self.bundle / name).read_bytes()
        text = name.endswith((".json", ".jinja"))
        damaged = damaged_json(rng, content) if text and rng.rand() < 0.6 else flipped(rng, content)
        (copy / name).unlink()
        (copy / name).write_bytes(damaged)
        if name != "bundle.json":
            entry = {"bytes": len(damaged), "sha256": hashlib.sha256(damaged).hexdigest()}
            manifest["files"][name] = entry
            (copy / "bundle.json").unlink()
            (copy / "bundle.json").write_text(json.dumps(manifest))
        return lambda: tr.load(copy, threads=1).generate(
            "what colour is the star ?", images=[self.image], max_tokens=3
        )

    def _gguf(self, rng: Rng) -> Try:
        file = self.folder / "damaged.gguf"
        content = self.gguf.read_bytes()
        file.write_bytes(flipped(rng, content, within=min(len(content), 6000)))
        return lambda: opened(file)

    def _safetensors(self, rng: Rng) -> Try:
        copy = self.folder / "damaged-checkpoint"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.checkpoint, copy)
        name = ("model.safetensors", "model.safetensors", "config.json", "tokenizer.json")[
            rng.randint(4)
        ]
        content = (copy / name).read_bytes()
        header = 8 + int.from_bytes(content[:8], "little") if name.endswith("tensors") else None
        (copy / name).write_bytes(flipped(rng, content, within=header))
        return lambda: opened(copy)

    def _image(self, rng: Rng) -> Try:
        kind = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO")[rng.randint(8)]
        file = io.BytesIO()
        self.image.resize(tuple(rng.randint(1, 90, 2))).save(file, kind)
        content = flipped(rng, file.getvalue())
        return lambda: self.model.generate("where is it ?", images=[content], max_tokens=2)

    def _messages(self, rng: Rng) -> Try:
        messages = [strange_message(rng) for _ in range(rng.randint(1, 4))]
        return lambda: self.model.generate(messages, max_tokens=2)

    def _arguments(self, rng: Rng) -> Try:
        names = ("max_tokens", "temperature", "top_p", "n", "seed", "stop", "ignore_eos", "images")
        given = {name: strange_value(rng) for name in names if rng.rand() < 0.3}
        given.setdefault("max_tokens", 2)
        prompt = strange_value(rng) if rng.rand() < 0.4 else "what is it ?"
        return lambda: self.model.generate(prompt, **given)


def flipped(rng: Rng, content: bytes, within: int | None = None) -> bytes:
    """Bytes changed, cut off, doubled, zeroed or replaced, in the first `within` of them."""
    data, end = bytearray(content), len(content) if within is None else within
    for _ in range((1, 1, 2, 4)[rng.randint(4)]):
        at, span = rng.randint(max(1, end)), 1 + rng.randint(16)
        how = rng.randint(6)
        if how == 0:
            data[at : at + span] = rng.bytes(span)
        elif how == 1:
            data[at : at + span] = b"\xff" * span
        elif how == 2:
            data[at : at + span] = b"\0" * span
        elif how == 3:
            del data[at : at + span]
        elif how == 4:
            data[at:at] = data[at : at + span]
        elif rng.rand() < 0.3:
            del data[at:]
    return bytes(data)


def damaged_json(rng: Rng, content: bytes) -> bytes:
    """Valid JSON with some of its values exchanged for others; other texts get new endings."""
    try:
        value = json.loads(content)
    except ValueError:
        return content + (b"{% for %}", b"{{ 1 / 0 }}", b"\xff", b"{{ x.y.z }}")[rng.randint(4)]
    for _ in range(1 + rng.randint(3)):
        places = list(_places(value))
        parent, key = places[rng.randint(len(places))]
        if rng.rand() < 0.2 and isinstance(parent, dict):
            del parent[key]
        else:
            parent[key] = strange_value(rng)
        if not value:
            break
    return json.dumps(value, default=repr).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, (dict, list)) and inner:
            yield from _places(inner)


def strange_value(rng: Rng) -> Any:
    """A value that some argument or entry did not expect."""
    values: tuple[Any, ...] = (
        *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308),
        *(float("nan"), float("inf"), "", "a", "\0", "x" * 5000, "data:,", "\ud800", b"", b"\xff"),
        *([], {}, [None], [[]], [0], [-1], [10**9], ["a"], {"a": 1}, [{"role": "user"}], (1, 2)),
        *(object(), range(3), np.float32(1), np.zeros(3), np.zeros((0, 0, 3), np.uint8)),
    )
    return values[rng.randint(len(values))]


def strange_message(rng: Rng) -> Any:
    message: dict[Any, Any] = {
        "role": ("user", "assistant", "system", "tool")[rng.randint(4)],
        "content": ("hi", "<image>", [{"type": "text", "text": "a"}])[rng.randint(3)],
    }
    for _ in range(rng.randint(3)):
        key = ("role", "content", "tool_calls", "reasoning", 5)[rng.randint(5)]
        message[key] = strange_value(rng)
    return message if rng.rand() < 0.9 else strange_value(rng)


def write_checkpoint(folder: Path) -> None:
    """A small random language model with a tokenizer of bytes."""
    import tokenizers
    import transformers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({letter: at for at, letter in enumerate(letters)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def write_gguf(file: Path) -> None:
    """The header of a small model, and its tensors, with a tokenizer of bytes."""
    import gguf
    import tokenizers

    rng, writer = Rng(1), gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*letters, "ab"])
    writer.add_token_types([1] * 257)
    writer.add_token_merges(["a b"])
    shapes = {
        "token_embd": (257, 32), "output_norm": (32,), "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32),
        "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (48, 32),
        "blk.0.ffn_up": (48, 32), "blk.0.ffn_down": (32, 48),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.randn(*shape).astype(np.float32))
    for finish in (writer.write_header_to_file, writer.write_kv_data_to_file,
                   writer.write_tensors_to_file, writer.close):  # fmt: skip
        finish()


def opened(path: Path) -> Any:
    """A checkpoint with its weights, as an export reads it."""
    from tightrope.export.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    checkpoint.tokenizer()
    return checkpoint.load_model()


def attempt(number: int, inputs: Inputs) -> dict[str, Any]:
    """What input `number` came to."""
    kind, action = inputs.make(number)
    try:
        action()
        came = "served"
    except TightropeError as error:
        came = type(error).__name__
    except BaseException as error:
        came = f"foreign: {type(error).__module__}.{type(error).__name__}: {error}"[:300]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"number": number, "kind": kind, "came": came, "peak_mb": peak}


def work(bundle: Path, first: int, last: int) -> None:
    """Tries inputs one after another; a line of JSON says what each came to."""
    out = os.dup(1)
    os.dup2(2, 1)  # libraries that print must not be read as results
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(bundle, Path(folder))
        for number in range(first, last):
            os.write(out, json.dumps(attempt(number, inputs)).encode() + b"\n")


def tried(bundle: Path, count: int) -> Iterator[dict[str, Any]]:
    """What each of the first `count` inputs came to, in as many processes as it takes."""
    number = 0
    while number < count:
        command = [sys.executable, __file__, str(bundle), "--work", str(number), str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        seconds = 120  # to start
        while number < count:
            try:
                line = lines.get(timeout=seconds)
            except queue.Empty:
                line = b""
            if not line:
                how = "crash" if process.poll() is not None else "hang"
                yield {"number": number, "kind": "?", "came": how, "peak_mb": 0}
                number += 1
                break
            yield json.loads(line)
            number, seconds = number + 1, SECONDS
        process.kill()
        process.wait()


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="of a model that sees")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.bundle, *given.work)
        return
    begin, counts, wrong = time.perf_counter(), Counter[str](), []
    by_kind: dict[str, Counter[str]] = {}
    peak = 0
    for found in tried(given.bundle, given.inputs):
        came, peak = found["came"].partition(":")[0], max(peak, found["peak_mb"])
        counts[came] += 1
        by_kind.setdefault(found["kind"], Counter())[came] += 1
        if came in ("foreign", "crash", "hang") or found["peak_mb"] > MEGABYTES:
            wrong.append(found)
            print(found, flush=True)
    record(
        "damaged",
        {
            "inputs": given.inputs,
            "came_to": dict(counts),
            "by_kind": {kind: dict(found) for kind, found in by_kind.items()},
            "peak_mb": peak,
            "seconds": round(time.perf_counter() - begin),
            "wrong": wrong,
        },
    )


if __name__ == "__main__":
    main()
