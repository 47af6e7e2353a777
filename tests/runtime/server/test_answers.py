"""What OpenAI's own client and plain HTTP get from a real server."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import PIL.Image
import pytest
from openai.types import completion_create_params as text
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat import completion_create_params as chat

from tightrope.bundle import Bundle
from tightrope.jetson.spent import Spent
from tightrope.latency_file import write_latency
from tightrope.live_file import live_file, read_requests
from tightrope.point import OperatingPoint
from tightrope.runtime.backends import create_backend
from tightrope.runtime.key import latency_key
from tightrope.runtime.live import WRITER
from tightrope.runtime.model import Model
from tightrope.runtime.server import answering
from tightrope.runtime.server.ask import CHAT, COMPLETION, Form
from tightrope.runtime.spending import Spending
from tightrope.runtime.stream import start

Load = Callable[[str], Model]
Part = Callable[..., dict[str, Any]]
USER = [{"role": "user", "content": "what is it?"}]
SPENT = Spent(energy_j=1.5, token_j=0.25, source="INA3221 VDD_IN")


@pytest.fixture(scope="module")
def api(client: Any) -> Iterator[openai.OpenAI]:
    address = f"http://127.0.0.1:{client.port}/v1"
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as api:
        yield api


def created(api: openai.OpenAI, **fields: Any) -> Any:
    """A reply, whole or in events, of OpenAI's client with whatever fields."""
    create: Any = api.chat.completions.create
    return create(**({"model": "llava", "messages": USER, "max_tokens": 8} | fields))


def test_an_answer_is_the_models_own(api: openai.OpenAI, loaded: Load) -> None:
    expected = loaded("llava").generate("what is it?", max_tokens=8)
    reply = created(api)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == expected.finish_reason
    assert (reply.object, reply.model) == ("chat.completion", "llava")
    assert reply.usage.prompt_tokens == expected.usage.prompt_tokens
    assert reply.usage.completion_tokens == expected.usage.completion_tokens
    ours = reply.model_extra["tightrope"]
    assert ours["backend"] == "onnxruntime" and ours["plan"] is None
    assert ours["timings"]["total_ms"] >= ours["timings"]["ttft_ms"] > 0


def test_pictures_are_seen_where_they_stand(
    api: openai.OpenAI, loaded: Load, picture: Part
) -> None:
    parts = [picture(30, 40, 10), {"type": "text", "text": "and"}, picture(20, 20, 250)]
    images = [base64.b64decode(parts[i]["image_url"]["url"].partition(",")[2]) for i in (0, 2)]
    said = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    expected = loaded("llava").generate([{"role": "user", "content": said}], images, max_tokens=8)
    reply = created(api, messages=[{"role": "user", "content": parts}])
    assert reply.choices[0].message.content == expected.text
    assert reply.model_extra["tightrope"]["usage"]["visual_tokens"] == 32


def test_events_joined_are_the_answer_and_end_with_the_usage(api: openai.OpenAI) -> None:
    whole = created(api)
    chunks = list(created(api, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert "timings" in chunks[-2].model_extra["tightrope"]


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_come_with_their_numbers(api: openai.OpenAI, stream: bool) -> None:
    asked = {"n": 3, "temperature": 1.5, "seed": 5}
    expected = [choice.message.content for choice in created(api, **asked).choices]
    assert len(set(expected)) > 1
    if not stream:
        assert [c.message.content for c in created(api, **asked).choices] == expected
        return
    texts = dict.fromkeys(range(3), "")
    for chunk in created(api, stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert list(texts.values()) == expected


def test_a_seed_is_drawn_and_told_and_gives_the_same_again(api: openai.OpenAI) -> None:
    first, second = (created(api, temperature=1.5, max_tokens=30) for _ in range(2))
    told = first.model_extra["tightrope"]["seed"]
    assert told != second.model_extra["tightrope"]["seed"]
    again = created(api, temperature=1.5, max_tokens=30, seed=told)
    assert again.choices[0].message.content == first.choices[0].message.content


def test_a_stop_string_ends_an_answer(api: openai.OpenAI) -> None:
    text = created(api, max_completion_tokens=8, max_tokens=openai.omit).choices[0].message.content
    for stop in (text[3], ["nowhere", text[3]]):
        reply = created(api, stop=stop)
        assert reply.choices[0].message.content == text[: text.index(text[3])]
        assert reply.choices[0].finish_reason == "stop"


def test_our_fields_choose_the_point(api: openai.OpenAI, picture: Part) -> None:
    ask = [{"role": "user", "content": [picture(), {"type": "text", "text": "what?"}]}]
    point = {"selector": "uniform", "keep": "25%", "kv_budget": 64, "policy": "h2o"}
    reply = created(api, messages=ask, extra_body={**point, "resolution": 84})
    told = reply.model_extra["tightrope"]
    assert told["point"]["policy"] == "h2o" and told["point"]["kv_budget"] == 64
    assert told["usage"]["visual_tokens"] == 36 and told["usage"]["visual_tokens_kept"] == 9


def test_a_text_is_gone_on_with_as_it_stands(api: openai.OpenAI, loaded: Load) -> None:
    model = loaded("llama")
    ids = [ord(letter) - 0x20 + 5 for letter in "once"]  # one token a character
    expected = model.generate(ids, max_tokens=6).text
    for prompt in ("once", ids):
        reply = api.completions.create(model="llama", prompt=prompt, max_tokens=6)
        assert reply.choices[0].text == expected and reply.object == "text_completion"
    pieces = api.completions.create(model="llama", prompt="once", max_tokens=6, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == expected


def test_models_are_listed_with_what_they_can(api: openai.OpenAI) -> None:
    models = api.models.list().data
    assert [model.id for model in models] == ["llava", "llama"]
    one = api.models.retrieve("llava")
    extra = one.model_extra
    assert extra is not None and extra["tightrope"]["resolutions"] == [56, 84, 28]
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("another")


def test_what_an_answer_would_take_is_counted_without_work(client: Any, picture: Part) -> None:
    body = {"model": "llava", "messages": [{"role": "user", "content": [picture()]}]}
    told = client.post("/v1/chat/completions/count", {**body, "max_tokens": 5}).json
    assert told["object"] == "chat.completion.count" and told["completion_tokens"] == 5
    assert told["visual_tokens"] == 16 and told["occupied_slots"] > 16
    reply = client.post("/v1/chat/completions", {**body, "max_tokens": 5}).json
    assert reply["usage"]["prompt_tokens"] == told["prompt_tokens"]


def test_neutral_values_of_openai_change_nothing(api: openai.OpenAI, client: Any) -> None:
    neutral = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "top_logprobs": None,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "user": "somebody",
        "store": False,
        "metadata": {},
        "service_tier": "auto",
        "stream": None,
    }
    plain = client.chat(max_tokens=4).json["choices"]
    assert client.chat(max_tokens=4, **neutral).json["choices"] == plain


@pytest.mark.parametrize(("module", "form"), [(chat, CHAT), (text, COMPLETION)])
def test_every_field_of_openais_client_is_known(module: Any, form: Form) -> None:
    params = module.CompletionCreateParamsStreaming.__annotations__
    assert set(params) <= form.names
    said = ChatCompletionStreamOptionsParam.__annotations__
    streaming = form.fields["stream_options"].kind.schema["properties"]
    assert set(said) == set(streaming)


def test_what_serves_openai_alone_is_neutral_at_its_usual_value(client: Any) -> None:
    neutral = {
        "prompt_cache_options": {"mode": "implicit"},
        "prompt_cache_retention": "in_memory",
        "moderation": None,
        "stream_options": {"include_obfuscation": False},
    }
    assert client.chat(max_tokens=1, **neutral).status == 200


def test_a_picture_is_decoded_from_base64_and_opened_once(
    client: Any, picture: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = [picture(31, 41), {"type": "text", "text": "?"}]
    expected = client.chat(content, max_tokens=2).json["choices"]  # and now the tower knows it
    calls: list[str] = []
    for owner, name in ((PIL.Image, "open"), (base64, "b64decode")):
        original = getattr(owner, name)

        def noted(*given: Any, original: Any = original, name: str = name, **more: Any) -> Any:
            calls.append(name)
            return original(*given, **more)

        monkeypatch.setattr(owner, name, noted)
    assert client.chat(content, max_tokens=2).json["choices"] == expected
    assert sorted(calls) == ["b64decode", "open"]


def in_work(client: Any) -> float:
    text = client.get("/metrics").content.decode()
    found = re.search(r"^tightrope_requests_in_work (\S+)$", text, re.M)
    assert found is not None
    return float(found[1])


def test_those_that_wait_leave_threads_to_others(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, let_go = 45, threading.Event()  # more than a pool has by itself

    def held(*given: Any, **more: Any) -> Any:
        assert let_go.wait(60)
        return start(*given, **more)

    monkeypatch.setattr(answering, "start", held)
    statuses: list[int] = []
    with serve("llama", queue=64, queue_per_client=64) as client:

        def ask() -> None:
            statuses.append(client.chat(model="llama", max_tokens=1).status)

        threads = [threading.Thread(target=ask) for _ in range(many)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while in_work(client) < many and time.monotonic() < end:
            time.sleep(0.01)
        counted = client.post("/v1/chat/completions/count", {"messages": USER})
        let_go.set()
        for thread in threads:
            thread.join(60)
    assert counted.status == 200 and statuses == [200] * many


ENDLESS = {"kv_budget": 64, "max_tokens": 4096, "temperature": 2.0, "stream": True}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(client: Any, stream: bool) -> None:
    with contextlib.closing(client.connect()) as connection:
        body = {"model": "llama", "messages": USER, **ENDLESS, "stream": stream}
        kind = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)
        if stream:
            connection.getresponse().read(100)
        else:
            begun = time.monotonic()
            while not in_work(client) and time.monotonic() < begun + 20:
                time.sleep(0.01)
    end = time.monotonic() + 20
    while in_work(client) and time.monotonic() < end:
        time.sleep(0.01)
    assert in_work(client) == 0
    assert 'tightrope_left_total{model="llama"}' in client.get("/metrics").content.decode()
    began = time.monotonic()
    assert client.chat(max_tokens=2).status == 200
    assert time.monotonic() - began < 10


def test_eight_clients_at_once_get_their_own_answers(client: Any, loaded: Load) -> None:
    texts = [f"question {number}" for number in range(8)]
    model = loaded("llava")
    expected = {text: model.generate(text, max_tokens=6).text for text in texts}
    found: dict[str, list[str]] = {text: [] for text in texts}

    def ask(text: str) -> None:
        for _ in range(3):
            reply = client.chat(text, max_tokens=6).json
            found[text].append(reply["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == {text: [answer] * 3 for text, answer in expected.items()}


def test_metrics_tell_figures_and_no_words(client: Any) -> None:
    secret = "a very private question"
    assert client.chat(secret, user="an-account", max_tokens=3).status == 200
    page = client.get("/metrics")
    text = page.content.decode()
    assert page.headers["content-type"].startswith("text/plain")
    for name in ("ttft_seconds", "inter_token_seconds", "queue_seconds", "occupied_slots"):
        assert f'tightrope_{name}_count{{model="llava"}}' in text
    assert "process_resident_memory_bytes" in text
    assert "private" not in text and "an-account" not in text


def test_alive_ready_and_described(client: Any) -> None:
    assert client.get("/healthz").json == {"status": "alive"}
    assert client.get("/readyz").json == {"status": "ready", "models": ["llava", "llama"]}
    document = client.get("/openapi.json").json
    paths = document["paths"]
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    assert {"deadline_ms", "keep", "user", "messages"} <= set(body["schema"]["properties"])
    for path in paths:
        assert client.get(path.replace("{model}", "llama")).status in (200, 405)


def test_deadlines_are_planned_kept_and_refused(
    bundle: Callable[[str], Path],
    serve: Any,
    synthetic: ModuleType,
    machines: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    opened = Bundle.open(bundle("llava"))
    key = latency_key(opened, create_backend("onnxruntime", opened, 1))
    model = machines.steady(synthetic.MODEL, 0.05)
    write_latency(opened, replace(synthetic.RECORD, key=key, model=model))
    monkeypatch.setattr(Spending, "spent", lambda *_: SPENT)
    with serve("llava") as client:
        ask = {"messages": USER, "max_tokens": 4}
        reply = client.post("/v1/chat/completions", {**ask, "deadline_ms": 60000}).json
        told = reply["tightrope"]
        assert told["plan"]["points"] > 1 and told["plan"]["total"]["p99_ms"] > 0
        assert told["deadline_met"] is True
        plain = client.post("/v1/chat/completions", ask).json["tightrope"]
        assert plain["plan"] is None and plain["timings"]["total_ms"] > 0
        assert plain["spent"] == {**asdict(SPENT), "throttled": []}
        expected = client.post("/v1/chat/completions/count", ask).json["prediction"]
        assert plain["prediction"] == expected and expected["total"]["p99_ms"] > 0
        assert told["prediction"]["stages"]["decode_ms"] > 0
        refused = client.post("/v1/chat/completions", {**ask, "deadline_ms": 2})
        assert refused.status == 422 and refused.error["code"] == "budget_unreachable"
        assert refused.json["error"]["fastest_ms"] > 2
        assert "retry-after" not in refused.headers
        counted = client.post("/v1/chat/completions/count", {**ask, "deadline_ms": 60000}).json
        assert counted["plan"]["point"] == told["plan"]["point"]
        assert counted["prediction"]["ttft"]["p50_ms"] > 0
        text = client.get("/metrics").content.decode()
        assert 'tightrope_deadlines_total{model="llava",outcome="held"} 1.0' in text
        assert 'tightrope_deadlines_total{model="llava",outcome="refused"} 1.0' in text
    WRITER.flush()
    kept = [entry.value for entry in read_requests(live_file(opened), key)]
    assert [request.completion_tokens for request in kept] == [4, 4]
    assert {request.num_ids for request in kept} == {counted["work"]["text_tokens"]}


def test_a_deadline_without_a_measurement_says_which_command_makes_one(client: Any) -> None:
    reply = client.chat(deadline_ms=900)
    assert (reply.status, reply.error["code"]) == (400, "not_measured")
    assert "tightrope profile" in reply.error["message"]


def test_the_point_of_a_request_is_the_librarys(client: Any, loaded: Load) -> None:
    point = OperatingPoint(kv_budget=64, policy="tova", sinks=2, recent=8)
    expected = loaded("llava").generate("what is it?", max_tokens=8, point=point)
    reply = client.chat(max_tokens=8, kv_budget=64, policy="tova", sinks=2, recent=8).json
    assert reply["choices"][0]["message"]["content"] == expected.text
    assert reply["tightrope"]["point"] == json.loads(json.dumps(expected.to_dict()["point"]))


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_come_as_openai_writes_them(
    api: openai.OpenAI, loaded: Load, stream: bool
) -> None:
    expected = loaded("llava").generate("what is it?", max_tokens=8, logprobs=2).logprobs
    assert expected is not None
    found = created(api, logprobs=True, top_logprobs=2, stream=stream)
    if stream:
        choices = [chunk.choices[0] for chunk in found if chunk.choices]
        content = [one for c in choices if c.logprobs for one in c.logprobs.content]
    else:
        content = found.choices[0].logprobs.content
    assert [one.token for one in content] == [one.text for one in expected]
    assert [one.logprob for one in content] == pytest.approx([one.logprob for one in expected])
    assert [len(one.top_logprobs) for one in content] == [2] * len(expected)
    assert content[0].bytes == list(content[0].token.encode())


def test_logprobs_of_completions_say_where_each_token_stands(api: openai.OpenAI) -> None:
    reply = api.completions.create(model="llama", prompt="once", max_tokens=6, logprobs=2)
    told, text = reply.choices[0].logprobs, reply.choices[0].text
    assert told is not None and told.tokens is not None and told.text_offset is not None
    assert [
        text[at : at + len(t)] for at, t in zip(told.text_offset, told.tokens, strict=True)
    ] == (told.tokens)
    assert told.top_logprobs is not None and len(told.top_logprobs[0]) == 2
    pieces = api.completions.create(
        model="llama", prompt="once", max_tokens=6, logprobs=2, stream=True
    )
    parts = [piece.choices[0].logprobs for piece in pieces if piece.choices]
    offsets = [at for part in parts if part for at in part.text_offset or ()]
    assert offsets == told.text_offset


def test_penalties_and_bias_are_the_librarys(client: Any, loaded: Load) -> None:
    options: dict[str, Any] = {"temperature": 1.2, "seed": 3, "max_tokens": 20, "top_k": 9}
    options |= {"min_p": 0.05, "repetition_penalty": 1.2, "presence_penalty": 0.5}
    options |= {"frequency_penalty": 0.3}
    expected = loaded("llava").generate("what is it?", logit_bias={77: 5.0}, **options).text
    reply = client.chat(logit_bias={"77": 5}, **options).json
    assert reply["choices"][0]["message"]["content"] == expected
