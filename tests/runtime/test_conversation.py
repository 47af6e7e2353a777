"""Prefill in chunks and decode under a budget, against the rule written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from tightrope.inputs.layout import assemble
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.point import OperatingPoint
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.controls import end_tokens, most_tokens, stop_strings
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.generation import Generation, Row, Start
from tightrope.runtime.likeliest import Logits, whole
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.thought import Thought

if TYPE_CHECKING:
    from tests.runtime.eager import EagerDecoder

Floats = npt.NDArray[np.float32]
PROMPT, STEPS = 120, 30
RELATIVE = 1e-4
"""Of the largest logit."""


class Watching(Sampler):
    """Draws as a sampler does, or the tokens it is given, and notes what it saw."""

    def __init__(self, forced: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(
            options.pop("temperature", 0.0), options.pop("top_p", 1.0), options.pop("seed", 0),
            options.pop("n", 1),
        )  # fmt: skip
        self._forced = None if forced is None else iter(forced)
        self.slots: Slots | None = None
        self.logits: list[Floats] = []
        self.tokens: list[npt.NDArray[np.int64]] = []
        self.positions: list[list[npt.NDArray[np.int32]]] = []

    def __call__(self, logits: Logits) -> npt.NDArray[np.int64]:
        tokens = super().__call__(logits)
        if self._forced is not None:
            tokens = np.array([next(self._forced)])
        self.logits.append(whole(logits).copy())
        self.tokens.append(tokens)
        if self.slots is not None:
            self.positions.append([position.copy() for position in self.slots.position])
        return tokens


@dataclass
class Run:
    """One prompt on one conversation, as far as it got."""

    loaded: Loaded
    settings: Settings
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.loaded)

    def read(self, token_ids: Sequence[int]) -> Floats:
        start = self.conversation.next_ordinal
        stream = assemble(token_ids, None, (), self.loaded.embeddings, start)
        *_, logits = self.conversation.read(stream, 0, self.settings, Cancel())
        return logits

    def decode(
        self,
        logits: Floats,
        sampler: Watching,
        steps: int,
        rows: int = 1,
        ends: frozenset[int] = frozenset(),
    ) -> list[Row]:
        slots = self.conversation.slots if rows == 1 else self.conversation.slots.fork(rows)
        sampler.slots = slots
        growing = [
            Row(self.loaded.language.decoder(None, True), Thought(None)) for _ in range(rows)
        ]
        generation = Generation(
            self.loaded.backend,
            slots,
            Start(logits=logits, ordinal=self.conversation.next_ordinal),
            growing,
            sampler,
            self.loaded.embeddings,
            [end_tokens(dict.fromkeys(ends, "")), stop_strings(), most_tokens(steps)],
            self.settings,
        )
        for _ in generation.run():
            pass
        return growing


Load = Callable[[str], Model]
NewEager = Callable[[str], "EagerDecoder"]
Parts = Callable[[str], Loaded]


@pytest.fixture(scope="session")
def parts(loaded: Load, parts_of: Callable[[Model], Loaded]) -> Parts:
    """`parts("llama")`: what a request needs of the bundle."""
    return lambda name: parts_of(loaded(name))


@pytest.fixture(scope="session")
def new_eager(eager: Any, hugging_face: Callable[[str], Any]) -> NewEager:
    """A fresh hand-written decoder with the checkpoint's weights."""

    def make(name: str) -> EagerDecoder:
        model = hugging_face(name)
        weights = {key: value.numpy() for key, value in model.state_dict().items()}
        decoder: EagerDecoder = eager.EagerDecoder(weights, model.config)
        return decoder

    return make


def prompt(length: int, seed: int = 3) -> list[int]:
    """Distinct tokens: a token read twice has keys of one length, and rounding would rank them."""
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.permutation(np.arange(5, 256))[:length]]


def difference(ours: Floats, theirs: npt.NDArray[np.float64]) -> float:
    """Largest, as a share of the largest logit."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def same_places(
    positions: Iterable[npt.NDArray[np.int32]], decoder: EagerDecoder, note: str
) -> None:
    for layer, position in enumerate(positions):
        expected = decoder.places(layer, position.shape[2])
        np.testing.assert_array_equal(position[0], expected, f"{note}, layer {layer}")


def follow(
    model: Loaded, decoder: EagerDecoder, rule: Any, point: OperatingPoint, chunk: int
) -> float:
    """Prefill chunk by chunk and decode, both ways; returns the largest relative difference."""
    settings = resolve(point, model.manifest)
    run, budgets, worst = Run(model, settings), settings.kv_budget[:, 0].tolist(), 0.0
    numbers = rule.of(settings.policy[0])
    ids = prompt(PROMPT + STEPS)
    for start in range(0, PROMPT, chunk):
        part = ids[start : min(start + chunk, PROMPT)]
        logits = run.read(part)
        worst = max(worst, difference(logits[0], decoder.read(part, start, budgets, numbers)))
        same_places(run.conversation.slots.position, decoder, f"after {start + len(part)} tokens")
    watching = Watching(ids[PROMPT:])
    run.decode(logits, watching, STEPS)
    for step, token in enumerate(ids[PROMPT:-1]):
        expected = decoder.read([token], PROMPT + step, budgets, numbers)
        worst = max(worst, difference(watching.logits[step + 1][0], expected))
        same_places(watching.positions[step + 1], decoder, f"after step {step}")
    views = run.conversation.slots.views()
    for layer, heads in enumerate(decoder.layers):
        for head, kept in enumerate(heads):
            assert len(kept) == budgets[layer]
            for entry in kept:
                for ours, theirs in ((views.keys, entry.key), (views.values, entry.value)):
                    stored = ours[layer][0, head, entry.place]
                    np.testing.assert_allclose(stored, theirs, atol=1e-4 * np.abs(theirs).max())
    return worst


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_budgeted_run_is_the_rule_written_out_by_hand(
    name: str, policy: str, parts: Parts, new_eager: NewEager, eager: Any
) -> None:
    point = OperatingPoint(policy=policy, kv_budget=40, sinks=2, recent=5)
    worst = follow(parts(name), new_eager(name), eager.Rule, point, 32)
    assert worst < RELATIVE


@pytest.mark.parametrize("policy", ["h2o", "snapkv"])
def test_every_layer_may_have_a_budget_of_its_own(
    policy: str, parts: Parts, new_eager: NewEager, eager: Any
) -> None:
    point = OperatingPoint(policy=policy, kv_budget=(60, 23, 37), sinks=3, recent=8)
    assert follow(parts("llama"), new_eager("llama"), eager.Rule, point, 17) < RELATIVE


def test_a_chunk_larger_than_the_budget_is_read_in_one_call(
    parts: Parts, new_eager: NewEager, eager: Any
) -> None:
    point = OperatingPoint(policy="tova", kv_budget=12, sinks=1, recent=2)
    assert follow(parts("qwen2"), new_eager("qwen2"), eager.Rule, point, 30) < RELATIVE


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_reading_at_once_is_reading_the_bundles_chunks_one_by_one(
    policy: str, parts: Parts
) -> None:
    model = parts("llama")
    point = OperatingPoint(policy=policy, kv_budget=50, sinks=2, recent=5)
    settings = resolve(point, model.manifest)
    at_once, by_chunk = Run(model, settings), Run(model, settings)
    ids, chunk = prompt(PROMPT), model.manifest.prefill_chunk
    last = at_once.read(ids)
    for start in range(0, PROMPT, chunk):
        other = by_chunk.read(ids[start : start + chunk])
    np.testing.assert_array_equal(last, other)
    for ours, theirs in zip(
        at_once.conversation.slots.position, by_chunk.conversation.slots.position, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kv_budget", [None, 44])
def test_a_fork_of_three_equals_three_single_runs(kv_budget: int | None, parts: Parts) -> None:
    model = parts("llama")
    budgeted = None if kv_budget is None else "h2o"
    point = OperatingPoint(policy=budgeted, kv_budget=kv_budget)
    settings = resolve(point, model.manifest)
    together = Run(model, settings)
    drawn = Watching(temperature=1.5, seed=7, n=3)
    logits = together.read(prompt(70))
    rows = together.decode(logits, drawn, 24, 3, ends=frozenset(range(60, 75)))
    lengths = {len(row.token_ids) for row in rows}
    assert len(lengths) > 1, "rows end at different times, so that some are padded"
    for number, row in enumerate(rows):
        alone, forced = Run(model, settings), Watching(row.token_ids)
        alone.decode(alone.read(prompt(70)), forced, len(row.token_ids))
        for step in range(len(row.token_ids)):
            shared = drawn.logits[step]
            mine = shared[number if len(shared) > 1 else 0]
            np.testing.assert_allclose(mine, forced.logits[step][0], atol=2e-4)
            if step:
                for ours, theirs in zip(drawn.positions[step], forced.positions[step], strict=True):
                    np.testing.assert_array_equal(ours[number], theirs[0])


def test_a_lowered_budget_keeps_what_the_rule_ranks_highest(
    parts: Parts, new_eager: NewEager, eager: Any
) -> None:
    model = parts("llama")
    wide = resolve(OperatingPoint(policy="h2o", kv_budget=80, recent=6), model.manifest)
    narrow = resolve(OperatingPoint(policy="h2o", kv_budget=30, recent=6), model.manifest)
    run, decoder = Run(model, wide), new_eager("llama")
    ids, rule = prompt(64), eager.Rule.of(wide.policy[0])
    run.read(ids)
    for start in (0, 32):
        decoder.read(ids[start : start + 32], start, wide.kv_budget[:, 0].tolist(), rule)
    run.conversation.slots.trim(narrow.kv_budget, narrow.policy)
    for layer, heads in enumerate(decoder.layers):
        for head, tokens in enumerate(heads):
            ordered = sorted(tokens, key=lambda token: token.score)
            safe = {t.ordinal for t in tokens if t.ordinal < 4 or t.ordinal > 63 - 6}
            others = [t.ordinal for t in ordered if t.ordinal not in safe]
            best = safe | set(others[len(others) - (30 - len(safe)) :])
            kept = run.conversation.slots.position[layer][0, head]
            assert set(kept[kept >= 0].tolist()) == best
