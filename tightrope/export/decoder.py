"""The language model traced as one graph: slots in, rows to write and logits out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch

from tightrope.bundle import Stage
from tightrope.export.trace import (
    DECODER,
    DECODER_ATTENTION,
    DecoderState,
    known,
    trace,
)
from tightrope.interface import Dims, decoder_inputs, decoder_outputs


def dims_of(config: Any) -> Dims:
    """Decoder sizes of a Hugging Face config."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    return Dims(
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=text.num_key_value_heads or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
    )


def trace_decoder(model: Any, stages: Sequence[Stage] = ()) -> ir.Model:
    """The decoder of a fake `model` with one SlotAttention node a layer.

    Call inside `fake_tensors`. The graph is in float16 with named, unbound initializers.
    """
    model.config.get_text_config()._attn_implementation_internal = DECODER_ATTENTION
    decoder = model.get_decoder()
    decoder.config._attn_implementation_internal = DECODER_ATTENTION
    dims = dims_of(model.config)
    layers, count = dims.num_hidden_layers, len(stages)

    def arguments(values: list[Any]) -> dict[str, Any]:
        head, rest = values[:3], values[3 + 2 * layers :]
        named = dict(zip(("inputs_embeds", "query_position", "rope_position"), head, strict=True))
        named |= {"slot_key": values[3 : 3 + layers], "slot_value": values[3 + layers :][:layers]}
        names = ("slot_score", "slot_position", "kv_budget", "policy")
        named |= dict(zip(names, rest, strict=False))
        if count:
            named |= {"visual_index": rest[4], "keep_ramps": rest[5:]}
        return named

    return trace(
        _Decoder(model, tuple(stages)),
        decoder_inputs(dims, count),
        decoder_outputs(dims, count),
        arguments,
    )


class _Decoder(torch.nn.Module):
    def __init__(self, model: Any, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        self.model, self.stages = model, stages

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
        visual_index: torch.Tensor | None = None,
        keep_ramps: list[torch.Tensor] | None = None,
    ) -> Any:
        slots = list(zip(slot_key, slot_value, slot_score, slot_position, strict=True))
        state = DecoderState(slots, query_position, kv_budget, policy)
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(known(DECODER, state))
            hooks.enter_context(_last_token_only(self.model, state))
            if visual_index is not None and keep_ramps is not None:
                layers = self.model.get_decoder().layers
                drop = _Selection(state, self.stages, visual_index, keep_ramps)
                hooks.enter_context(drop.hooked(layers))
            logits = self.model(
                inputs_embeds=inputs_embeds, position_ids=rope_position, use_cache=False
            ).logits
        key, value, target, score, position = zip(*state.results, strict=True)
        rows = [*key, *value, *target]
        if not self.stages:
            rows = [_stack(part) for part in (key, value, target)]
        return (logits[:, 0].float(), *rows, _stack(score), _stack(position))


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


class _Selection:
    """In-LLM stages: at a stage's layer the hidden states are gathered once, and what later layers
    get per token (positions, rotary embeddings) with the same index; positions are kept."""

    def __init__(
        self,
        state: DecoderState,
        stages: Sequence[Stage],
        visual_index: torch.Tensor,
        keep_ramps: Sequence[torch.Tensor],
    ) -> None:
        self._state = state
        self._stages = {stage.layer: ramp for stage, ramp in zip(stages, keep_ramps, strict=True)}
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

    def _watch(self, layer: int, query: torch.Tensor, key: torch.Tensor) -> None:
        if layer + 1 in self._stages:
            self._score = _last_query_attention(self._state, layer, query, key)

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


def _last_query_attention(
    state: DecoderState, layer: int, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Softmax attention of each row's last valid query to the new tokens, mean over heads.

    One row of attention is computed again; the full map never exists. float32 [N,S].
    """
    slot_key, _, _, slot_position = state.slots[layer]
    rows, heads, length, width = query.shape
    last = ((state.query_position >= 0).sum(1) - 1).clamp(min=0)
    index = last[:, None, None, None].expand(-1, heads, 1, width)
    one = torch.gather(query, 2, index).reshape(rows, key.shape[1], -1, width)
    used = slot_position[:, :, : slot_key.shape[2]]
    logits = torch.cat([one @ slot_key.transpose(2, 3), one @ key.transpose(2, 3)], -1)
    padding = (state.query_position < 0)[:, None].expand(-1, key.shape[1], -1)
    hidden = torch.cat([used < 0, padding], 2)
    weight = logits.float().masked_fill(hidden[:, :, None], -1e30).softmax(-1)
    score: torch.Tensor = weight.mean((1, 2))[:, -length:]
    return score
