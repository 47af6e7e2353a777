"""A decoder with a budgeted cache written out by hand: the rule's second, independent reading.

Every layer and KV head holds a list of the tokens it kept, each with its own key, value, score
and place. Everything is float64 and nothing comes from the package. The rule:

    attend over the kept tokens and the new ones, causally by ordinal;
    update the scores of both, once per call;
    keep the best `budget` of both.

Of equal scores the lower place leaves first, kept tokens before new ones. A new token that stays
takes the lowest place that was given up in the call, then the lowest that was never taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
POOL = 5


@dataclass
class Token:
    """What one layer and KV head knows of one token."""

    ordinal: int
    key: Floats
    value: Floats
    score: float
    place: int = -1


@dataclass(frozen=True)
class Rule:
    """A policy's eight numbers, by name."""

    decay: float
    attention: float
    position: float
    key_norm: float
    score_window: int
    pool: bool
    sinks: int
    recent: int

    @classmethod
    def of(cls, vector: Sequence[float]) -> Rule:
        decay, attention, position, key_norm, window, pool, sinks, recent = map(float, vector)
        whole = (int(window), bool(pool), int(sinks), int(recent))
        return cls(decay, attention, position, key_norm, *whole)


class EagerDecoder:
    """Llama or Qwen2 by Hugging Face's names, reading tokens call by call into lists."""

    def __init__(self, weights: Mapping[str, Any], config: Any) -> None:
        self._weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._epsilon, self._theta = config.rms_norm_eps, config.rope_parameters["rope_theta"]
        self.layers: list[list[list[Token]]] = [
            [[] for _ in range(self._groups)] for _ in range(config.num_hidden_layers)
        ]

    def read(
        self, token_ids: Sequence[int], start: int, budgets: Sequence[int], rule: Rule
    ) -> Floats:
        """One call: tokens at ordinals start, start + 1, ...; logits [vocab] after the last."""
        weights = self._weights
        ordinals = np.arange(start, start + len(token_ids))
        hidden = weights["model.embed_tokens.weight"][list(token_ids)]
        for number, heads in enumerate(self.layers):
            name = f"model.layers.{number}."
            normal = self._normalised(hidden, name + "input_layernorm.weight")
            mixed = self._attend(
                normal, name + "self_attn.", ordinals, heads, budgets[number], rule
            )
            hidden = hidden + mixed @ weights[name + "self_attn.o_proj.weight"].T
            normal = self._normalised(hidden, name + "post_attention_layernorm.weight")
            gate = normal @ weights[name + "mlp.gate_proj.weight"].T
            up = normal @ weights[name + "mlp.up_proj.weight"].T
            inner = gate / (1 + np.exp(-gate)) * up
            hidden = hidden + inner @ weights[name + "mlp.down_proj.weight"].T
        last = self._normalised(hidden[-1:], "model.norm.weight")
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        logits: Floats = (last @ head.T)[0]
        return logits

    def places(self, layer: int, capacity: int) -> npt.NDArray[np.int32]:
        """Ordinal of the token in each place [Hkv,capacity], -1 where none is."""
        table = np.full((self._groups, capacity), -1, np.int32)
        for head, tokens in enumerate(self.layers[layer]):
            for token in tokens:
                table[head, token.place] = token.ordinal
        return table

    def _normalised(self, hidden: Floats, weight: str) -> Floats:
        square = (hidden * hidden).mean(-1, keepdims=True)
        normal: Floats = hidden / np.sqrt(square + self._epsilon) * self._weights[weight]
        return normal

    def _projected(self, hidden: Floats, name: str) -> Floats:
        """[S,heads,width]"""
        values = hidden @ self._weights[name + ".weight"].T
        if name + ".bias" in self._weights:
            values = values + self._weights[name + ".bias"]
        heads: Floats = values.reshape(len(hidden), -1, self._width)
        return heads

    def _rotated(self, values: Floats, ordinals: npt.NDArray[np.int64]) -> Floats:
        half = self._width // 2
        speed = self._theta ** (-np.arange(half) / half)
        angle = (ordinals[:, None] * speed)[:, None]
        first, second = values[..., :half], values[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    def _attend(
        self,
        hidden: Floats,
        name: str,
        ordinals: npt.NDArray[np.int64],
        heads: list[list[Token]],
        budget: int,
        rule: Rule,
    ) -> Floats:
        query = self._rotated(self._projected(hidden, name + "q_proj"), ordinals)
        keys = self._rotated(self._projected(hidden, name + "k_proj"), ordinals)
        values = self._projected(hidden, name + "v_proj")
        share = self._heads // self._groups
        mixed = np.zeros_like(query)
        for head, kept in enumerate(heads):
            new = [
                Token(
                    int(ordinal),
                    key,
                    value,
                    rule.position * ordinal - rule.key_norm * float(np.sqrt((key * key).sum())),
                )
                for ordinal, key, value in zip(
                    ordinals, keys[:, head], values[:, head], strict=True
                )
            ]
            served = slice(head * share, (head + 1) * share)
            mixed[:, served], received = _mix(query[:, served], ordinals, kept + new, rule)
            if rule.pool:
                received[len(kept) :] = _pooled(received[len(kept) :])
            for token, mass in zip(kept + new, received, strict=True):
                token.score = rule.decay * token.score + rule.attention * float(mass)
            heads[head] = _survivors(kept, new, budget, rule)
        return mixed.reshape(len(hidden), -1)


def _mix(
    query: Floats, ordinals: npt.NDArray[np.int64], tokens: list[Token], rule: Rule
) -> tuple[Floats, Floats]:
    """Attention output [S,heads,width] and the mass that each token received."""
    keys = np.stack([token.key for token in tokens])
    values = np.stack([token.value for token in tokens])
    ages = np.array([token.ordinal for token in tokens])
    received = np.zeros(len(tokens))
    out = np.zeros_like(query)
    first_counted = len(query) - rule.score_window if rule.score_window else 0
    for place, ordinal in enumerate(ordinals):
        visible = ages <= ordinal
        for head in range(query.shape[1]):
            logits = keys[visible] @ query[place, head] / np.sqrt(query.shape[-1])
            weight = np.exp(logits - logits.max())
            weight /= weight.sum()
            out[place, head] = weight @ values[visible]
            if place >= first_counted:
                received[visible] += weight
    return out, received


def _pooled(mass: Floats) -> Floats:
    side = POOL // 2
    windows = [mass[max(0, i - side) : i + side + 1] for i in range(len(mass))]
    return np.array([window.mean() for window in windows])


def _survivors(kept: list[Token], new: list[Token], budget: int, rule: Rule) -> list[Token]:
    newest = max(token.ordinal for token in new)
    by_place = sorted(kept, key=lambda token: token.place)
    candidates = [*by_place, *new]
    may_leave = [
        token
        for token in candidates
        if token.ordinal >= rule.sinks and token.ordinal <= newest - rule.recent
    ]
    may_leave.sort(key=lambda token: token.score)
    leaving = {token.ordinal for token in may_leave[: max(0, len(candidates) - budget)]}
    staying = [token for token in candidates if token.ordinal not in leaving]
    if len(new) > 1:
        # A prompt is appended first and trimmed afterwards, so that what stays moves together.
        for place, token in enumerate(staying):
            token.place = place
        return staying
    given_up = sorted(token.place for token in kept if token.ordinal in leaving)
    places = [*given_up, len(kept)]
    for token, place in zip((t for t in new if t.ordinal not in leaving), places, strict=False):
        token.place = place
    return staying
