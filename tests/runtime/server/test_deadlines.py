"""Several requests with deadlines at one server: who is let in, who waits, how one is refused."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.bundle import Bundle
from tightrope.latency import Hosting, LatencyModel, Prefilling, Stepping
from tightrope.latency_file import write_latency
from tightrope.runtime.backends import create_backend
from tightrope.runtime.key import latency_key

Find = Callable[[str], Path]
Measured = Callable[[LatencyModel], object]
USER = [{"role": "user", "content": "?"}]
MANY = "a question of many letters, which the small model reads one by one, call by call, and " * 2


@pytest.fixture
def measured(
    bundle: Find, synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Measured:
    """`measured(model)`: as if the small text model had been found to take so long here."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    opened = Bundle.open(bundle("llama"))
    key = latency_key(opened, create_backend("onnxruntime", opened, 1))
    return lambda model: write_latency(opened, replace(synthetic.RECORD, key=key, model=model))


@contextlib.contextmanager
def answering(client: Any, **fields: Any) -> Iterator[Any]:
    """Inside, an answer has begun to come."""
    body = {"messages": USER, "stream": True, "temperature": 1.0, **fields}
    kind = {"content-type": "application/json"}
    with contextlib.closing(client.connect()) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)
        response = connection.getresponse()
        assert response.status == 200 and response.read(20)
        yield response


def test_calls_that_read_a_prompt_take_no_longer_than_the_server_is_told(
    measured: Measured, serve: Any, machines: ModuleType, synthetic: ModuleType
) -> None:
    measured(machines.steady(synthetic.MODEL))
    ask = {"messages": [{"role": "user", "content": MANY}], "max_tokens": 1}
    calls = {}
    for chunk_ms in (100, 4):  # of which 2 are for the call, and 0.1 for each token
        with serve("llama", chunk_ms=chunk_ms) as client:
            told = client.post("/v1/chat/completions/count", ask).json
            calls[chunk_ms] = [call["tokens"] for call in told["work"]["prefill"]]
            reply = client.post("/v1/chat/completions", ask).json
            assert reply["usage"]["prompt_tokens"] == sum(calls[chunk_ms])
    assert max(calls[100]) == 32 and max(calls[4]) == 16


def test_a_nearer_deadline_passes_a_running_answer_that_can_spare_it(
    measured: Measured, serve: Any, machines: ModuleType, synthetic: ModuleType
) -> None:
    measured(machines.steady(synthetic.MODEL))
    # A token is said to take 4 ms: 1,000 of them take 4 s at most, however fast they are here.
    long = {"kv_budget": 64, "max_tokens": 1000, "logit_bias": {"1": -100}, "deadline_ms": 30000}
    with serve("llama") as client, answering(client, **long) as running:
        brief = {"messages": USER, "max_tokens": 2, "deadline_ms": 5000}
        reply = client.post("/v1/chat/completions", brief)
        assert reply.status == 200 and reply.json["tightrope"]["deadline_met"] is True
        waited = reply.json["tightrope"]["timings"]["queue_ms"]
        last = [json.loads(line[6:]) for line in running if line.startswith(b"data: {")][-1]
        told = last["tightrope"]
        assert told["deadline_met"] is True and told["usage"]["completion_tokens"] == 1000
        assert told["timings"]["queue_ms"] > 0 and waited < told["timings"]["total_ms"] / 2


def test_who_would_come_too_late_behind_others_is_told_when_to_come_again(
    measured: Measured, serve: Any, machines: ModuleType, synthetic: ModuleType
) -> None:
    measured(machines.steady(synthetic.MODEL))
    long = {"kv_budget": 64, "max_tokens": 1000, "logit_bias": {"1": -100}, "deadline_ms": 5000}
    with serve("llama") as client, answering(client, **long):
        ask = {"messages": USER, "max_tokens": 1000, "kv_budget": 64, "deadline_ms": 5500}
        refused = client.post("/v1/chat/completions", ask)
        assert (refused.status, refused.error["code"]) == (429, "busy")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.error["fastest_ms"] > 5500  # the deadline that could be met
        patient = client.post("/v1/chat/completions", {**ask, "deadline_ms": 60000})
        assert patient.status == 200


def test_a_machine_that_became_slow_is_no_fault_of_the_request(
    measured: Measured, serve: Any, machines: ModuleType, synthetic: ModuleType
) -> None:
    fast = Prefilling(
        knots=(0.0,),
        token_ms=(1e-4,),
        call_ms=0.02,
        pair_ms=0.0,
        behind_tower_ms=0.0,
        eviction_ms=0.0,
        given_up_ms=0.0,
        schedules={},
        behind_selector_ms={},
    )
    step = Stepping(start_ms=0.0, token_ms=0.02, slot_ms=0.0, eviction_ms=0.0)
    host = Hosting(request_ms=0.02, token_ms=0.0)
    model = replace(synthetic.MODEL, prefilling=fast, stepping=step, hosting=host)
    measured(machines.steady(model))
    with serve("llama") as client:
        ask = {"messages": USER, "max_tokens": 16, "logit_bias": {"1": -100}}
        end, status = time.monotonic() + 30, 0
        while status != 503 and time.monotonic() < end:  # what was learnt is soon forgotten
            for _ in range(2):
                client.post("/v1/chat/completions", {**ask, "deadline_ms": 60000})
            refused = client.post("/v1/chat/completions", {**ask, "deadline_ms": 2})
            status = refused.status
        assert (status, refused.error["code"]) == (503, "slowed")
        assert int(refused.headers["retry-after"]) >= 1 and refused.error["fastest_ms"] > 2
        never = client.post("/v1/chat/completions", {**ask, "deadline_ms": 0.001})
        assert (never.status, never.error["code"]) == (422, "budget_unreachable")
        text = client.get("/metrics").content.decode()
        assert 'tightrope_deadlines_total{model="llama",outcome="refused"}' in text
