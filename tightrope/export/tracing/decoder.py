"""The language model traced as one graph: slots in, rows to write and logits out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch

from tightrope.export.schedules import Schedule
from tightrope.export.tracing.attention import (
    DECODER,
    DECODER_ATTENTION,
    DecoderState,
    LayerAttention,
    attending,
)
from tightrope.export.tracing.convolution import ConvStates
from tightrope.export.tracing.experts import EXPERTS
from tightrope.export.tracing.trace import trace
from tightrope.interface.tensors import Dims, decoder_inputs, decoder_outputs


def trace_decoder(model: Any, dims: Dims, schedule: Schedule | None = None) -> ir.Model:
    """The decoder of a fake `model` with one SlotAttention node a layer.

    Call inside `fake_tensors`. The graph is in float16 with named, unbound initializers.
    """
    for config in (model.config.get_text_config(), model.get_decoder().config):
        config._attn_implementation_internal = DECODER_ATTENTION
        config._experts_implementation_internal = EXPERTS
    _hold_frequencies(model)
    stages = 0 if schedule is None else len(schedule.layers)
    return trace(
        _Decoder(model, schedule), decoder_inputs(dims, stages), decoder_outputs(dims, stages)
    )


def _hold_frequencies(model: Any) -> None:
    """Longrope keeps the frequencies of short prompts; the bundle says how far they hold."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "longrope":
            module.rope_type = "default"


class _Decoder(torch.nn.Module):
    def __init__(self, model: Any, schedule: Schedule | None) -> None:
        super().__init__()
        self.model, self.schedule = model, schedule

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        query_position: torch.Tensor,
        rope_position: torch.Tensor,
        slot_key: list[torch.Tensor],
        slot_value: list[torch.Tensor],
        slot_score: torch.Tensor,
        slot_position: torch.Tensor,
        kv_budget: torch.Tensor,
        policy: torch.Tensor,
        query_reach: torch.Tensor | None = None,
        conv_state: torch.Tensor | None = None,
        deepstack: torch.Tensor | None = None,
        visual_index: torch.Tensor | None = None,
        keep_ramp: list[torch.Tensor] | None = None,
    ) -> Any:
        slots = list(zip(slot_key, slot_value, slot_score, slot_position, strict=True))
        state = DecoderState(slots, query_position, kv_budget, policy, query_reach)
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(attending(DECODER, state))
            hooks.enter_context(_last_token_only(self.model, state))
            layers = self.model.get_decoder().layers
            levels = [] if deepstack is None else _levels(deepstack)
            hooks.enter_context(_added(layers, levels))
            if self.schedule is not None:
                assert visual_index is not None and keep_ramp is not None
                drop = _Selection(state, levels, self.schedule, visual_index, keep_ramp)
                hooks.enter_context(drop.hooked(layers))
            states = None if conv_state is None else ConvStates(conv_state, query_position)
            logits = self.model(
                inputs_embeds=inputs_embeds,
                position_ids=rope_position,
                past_key_values=states,
                use_cache=False,
            ).logits
        key, value, target, score, position = zip(*state.results, strict=True)
        rows = [*key, *value, *target]
        if self.schedule is None:
            rows = [_stack(part) for part in (key, value, target)]
        kept = [] if states is None else [_stack(states.results)]
        return (logits[:, 0].float(), *rows, _stack(score), _stack(position), *kept)


def _stack(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """[L, ...] of L tensors; without an Unsqueeze for each of them."""
    shape = (len(layers), *layers[0].shape)
    return torch.cat(list(layers)).reshape(shape)


@contextlib.contextmanager
def _last_token_only(model: Any, state: DecoderState) -> Iterator[None]:
    """The head sees each row's last valid token alone; rows are padded on the right."""

    def gather(_: Any, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (hidden,) = arguments
        last = ((state.query_position >= 0).sum(1) - 1).clamp(min=0)
        index = last[:, None, None].expand(-1, 1, hidden.shape[-1])
        return (torch.gather(hidden, 1, index),)

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def _levels(deepstack: torch.Tensor) -> list[torch.Tensor]:
    """Levels [N,S,E] of deepstack [N,S,D,E]."""
    return [deepstack[:, :, level] for level in range(deepstack.shape[2])]


@contextlib.contextmanager
def _added(layers: Any, levels: list[torch.Tensor]) -> Iterator[None]:
    """DeepStack: level i is added to what layer i gives; the list may change meanwhile."""

    def behind(number: int) -> Any:
        return lambda _, arguments, hidden: hidden + levels[number]

    with contextlib.ExitStack() as handles:
        for number in range(len(levels)):
            handle = layers[number].register_forward_hook(behind(number))
            handles.callback(handle.remove)
        yield


class _Selection:
    """In-LLM stages: at a stage's layer the hidden states are gathered once, and what later layers
    get per token (positions, rotary embeddings, levels) with the same index; positions are kept."""

    def __init__(
        self,
        state: DecoderState,
        levels: list[torch.Tensor],
        schedule: Schedule,
        visual_index: torch.Tensor,
        keep_ramp: Sequence[torch.Tensor],
    ) -> None:
        self._state, self._levels, self._schedule = state, levels, schedule
        self._stages = dict(zip(schedule.layers, keep_ramp, strict=True))
        self._candidates = visual_index
        self._score: torch.Tensor | None = None
        self._indices: list[torch.Tensor] = []
        state.on_attention = self._watch

    @contextlib.contextmanager
    def hooked(self, layers: Any) -> Iterator[None]:
        with contextlib.ExitStack() as handles:
            for number, layer in enumerate(layers):
                if number < min(self._stages):
                    continue
                hook = self._enter(number)
                handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
                handles.callback(handle.remove)
            yield

    def _watch(self, layer: int, given: LayerAttention) -> None:
        if layer + 1 in self._stages:
            self._score = self._schedule.score(given)

    def _enter(self, number: int) -> Any:
        def hook(_: Any, arguments: Any, named: dict[str, Any]) -> Any:
            hidden = arguments[0]
            if number in self._stages:
                assert self._score is not None, "the layer before has attended"
                index, self._candidates = torch.ops.tightrope.select_tokens(
                    self._score, self._candidates, self._stages[number]
                )
                self._indices.append(index)
                hidden = _take(hidden, index)
                self._state.query_position = _take(self._state.query_position, index)
                if self._state.query_reach is not None:
                    self._state.query_reach = _take(self._state.query_reach, index)
                self._levels[:] = [_take(level, index) for level in self._levels]
            for index in self._indices:
                cos, sin = named["position_embeddings"]
                named["position_embeddings"] = (_take(cos, index), _take(sin, index))
                if named.get("position_ids") is not None:
                    named["position_ids"] = _take(named["position_ids"], index)
            return (hidden, *arguments[1:]), named

        return hook


def _take(value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens `index` [N,S'] of value [N,S] or [N,S,W]."""
    if value.dim() == 3:
        index = index[:, :, None].expand(-1, -1, value.shape[2])
    return torch.gather(value, 1, index)
