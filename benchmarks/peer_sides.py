"""One peer of `peers.py`, in its own environment: `python peer_sides.py NAME MODEL THREADS`.

Answers each line, a question as JSON, with what it took, as JSON. A question has a `round`, from
which prompts and pictures are drawn so that nobody meets one twice, and either `prompt`, the tokens
to read, and `tokens`, those to write behind the first; or `image`, the pixels on its side, and
perhaps `keep`, the share of its visual tokens that is kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ASKED = "what is left of the red cup?"
IMAGE_MARKS = {"llava": "<image>", "qwen3_vl": "<|image_pad|>"}
VISUAL_TOKENS = 576
Question = dict[str, Any]
Times = dict[str, float]
Ask = Callable[[Question], Times]


def main(name: str, model: str, threads: int) -> None:
    ask = SIDES[name](model, threads)
    print("{}", flush=True)  # it is there
    for line in sys.stdin:
        print(json.dumps(ask(json.loads(line))), flush=True)


def prompt_of(question: Question) -> list[int]:
    rng = np.random.default_rng(question["round"])
    ids: list[int] = rng.integers(1_000, 40_000, question["prompt"]).tolist()
    return ids


def picture_of(question: Question) -> Any:
    side = question["image"]
    return np.random.default_rng(question["round"]).integers(0, 256, (side, side, 3), np.uint8)


def timed(steps: Iterator[Any], tokens: int) -> Times:
    """Of a generator that gives the first token, then `tokens` more."""
    started = time.perf_counter()
    next(steps)
    read = time.perf_counter()
    for _ in range(tokens):
        next(steps)
    ended = time.perf_counter()
    return {"first token": (read - started) * 1e3, "step": (ended - read) * 1e3 / tokens}


def tightrope(path: str, threads: int) -> Ask:
    import tightrope as tr

    model = tr.load(path, threads=threads, prefix_bytes=0, live=False)

    def ask(question: Question) -> Times:
        if "image" not in question:
            tokens = question["tokens"]
            ids = prompt_of(question)
            timings = model.generate(ids, max_tokens=tokens + 1, ignore_eos=True).timings
            return {"first token": timings.ttft_ms, "step": timings.decode_ms / tokens}
        point, keep = None, question.get("keep")
        if keep:
            point = tr.OperatingPoint(selector="divprune", keep=f"{keep:.0%}")
        picture = picture_of(question)
        model.forget_images()  # of the same picture with another keep
        started = time.perf_counter()
        answer = model.generate(ASKED, [picture], max_tokens=1, point=point)
        took = (time.perf_counter() - started) * 1e3
        return {"first token": took, "prompt tokens": answer.usage.prompt_tokens}

    return ask


def llama_cpp(path: str, threads: int) -> Ask:
    import llama_cpp

    model = llama_cpp.Llama(
        path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def steps(ids: list[int]) -> Iterator[Any]:
        model.reset()
        while True:
            model.eval(ids)
            pointer = llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
            ids = [int(np.ctypeslib.as_array(pointer, shape=(model.n_vocab(),)).argmax())]
            yield ids

    return lambda question: timed(steps(prompt_of(question)), question["tokens"])


def onnxruntime_genai(path: str, threads: int) -> Ask:
    import onnxruntime_genai as genai

    config = genai.Config(path)
    session = {"intra_op_num_threads": threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)

    def steps(ids: list[int], tokens: int) -> Iterator[Any]:
        parameters = genai.GeneratorParams(model)
        length = len(ids) + tokens + 2
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(ids)
        while True:
            generator.generate_next_token()
            yield generator.get_next_tokens()

    return lambda question: timed(
        steps(prompt_of(question), question["tokens"]), question["tokens"]
    )


def openvino_genai(path: str, threads: int) -> Ask:
    import openvino
    import openvino_genai as genai

    if any(shape in path for shape in IMAGE_MARKS):
        pipeline = genai.VLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)

        def see(question: Question) -> Times:
            config = genai.GenerationConfig(max_new_tokens=1, ignore_eos=True)
            config.apply_chat_template = False
            config.pruning_ratio = round(100 * (1 - question.get("keep", 1.0)))
            picture = openvino.Tensor(picture_of(question)[None])
            started = time.perf_counter()
            metrics = pipeline.generate(ASKED, images=[picture], generation_config=config)
            took = (time.perf_counter() - started) * 1e3
            read = metrics.perf_metrics.get_num_input_tokens()
            return {"first token": took, "prompt tokens": read}

        return see
    pipeline = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)

    def ask(question: Question) -> Times:
        ids = np.array([prompt_of(question)])
        given = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = genai.GenerationConfig(max_new_tokens=question["tokens"] + 1, ignore_eos=True)
        metrics = pipeline.generate(given, config).perf_metrics
        return {"first token": metrics.get_ttft().mean, "step": metrics.get_tpot().mean}

    return ask


def transformers(path: str, threads: int) -> Ask:
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    mark = next((mark for shape, mark in IMAGE_MARKS.items() if shape in path), None)
    kind = transformers.AutoModelForImageTextToText if mark else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(path, dtype=torch.bfloat16).eval()

    def steps(ids: list[int]) -> Iterator[Any]:
        given, cache = torch.tensor([ids]), None
        while True:
            out = model(input_ids=given, past_key_values=cache, logits_to_keep=1)
            given, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            yield given

    if mark is None:
        return lambda question: timed(steps(prompt_of(question)), question["tokens"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    pixels = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")

    def see(question: Question) -> Times:
        picture = picture_of(question)
        started = time.perf_counter()
        given = tokenizer(mark * VISUAL_TOKENS + ASKED, return_tensors="pt")
        kinds = (given["input_ids"] == model.config.image_token_id).int()
        given |= pixels([picture], return_tensors="pt")
        if "image_grid_thw" in given:
            given["mm_token_type_ids"] = kinds
        model(**given, logits_to_keep=1)
        took = (time.perf_counter() - started) * 1e3
        return {"first token": took, "prompt tokens": given["input_ids"].shape[1]}

    return see


SIDES: dict[str, Callable[[str, int], Ask]] = {
    "tightrope": tightrope,
    "llama.cpp": llama_cpp,
    "onnxruntime-genai": onnxruntime_genai,
    "openvino-genai": openvino_genai,
    "transformers": transformers,
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
