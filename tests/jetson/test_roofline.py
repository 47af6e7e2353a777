"""What a data sheet promises, held against what EdgeReasoning measured (arXiv 2511.01866).

DeepSeek-R1 distilled into Qwen2.5 1.5B, Llama 3.1 8B and Qwen2.5 14B, float16, vLLM, AGX Orin 64GB
in MAXN. Its decode times per token are n + m · context; the first tokens are its measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.jetson.device import Device, find_device, known_devices
from tightrope.jetson.probe import find_module
from tightrope.jetson.roofline import (
    TEXT_TOKENS,
    DecoderSizes,
    decoder_sizes,
    predict_from_device,
    predict_request,
    tower_patches,
    weights_of,
)

AGX = find_device("AGX Orin 64GB", "MAXN")


@dataclass(frozen=True)
class Shape:
    """A published decoder, by its configuration."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    head_dim: int = 128

    @property
    def sizes(self) -> DecoderSizes:
        """In float16; biases and norms are too few to matter."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate
        weights = self.layers * layer + self.hidden * self.vocabulary
        slot_bytes = 2 * 2 * self.layers * self.kv_heads * self.head_dim
        return DecoderSizes(weights=weights, weight_bytes=2.0 * weights, slot_bytes=slot_bytes)


SHAPES = {
    "1.5B": Shape(28, 1536, 12, 2, 8960, 151936),
    "8B": Shape(32, 4096, 32, 8, 14336, 128256),
    "14B": Shape(48, 5120, 40, 8, 13824, 152064),
}
DECODE = {
    "1.5B": (0.023634, 1.4968e-7),
    "8B": (0.100384, 6.9202e-7),
    "14B": (0.186554, 1.13017e-6),
}
"""n and m in seconds."""
MEASURED_TPOT_MS = {"1.5B": 24.6, "8B": 101.5, "14B": 187.0}
FIRST_TOKEN_MS = {
    "1.5B": {129: 49, 513: 101, 1027: 173, 2049: 325, 4097: 648},
    "8B": {129: 188, 513: 544, 1027: 988, 2049: 1966, 4097: 3512},
    "14B": {129: 339, 513: 997, 1027: 1824, 2049: 3739, 4097: 6631},
}


@pytest.mark.parametrize("context", [1, 128, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("name", SHAPES)
def test_published_times_per_token_are_met_within_5_percent(name: str, context: int) -> None:
    n, m = DECODE[name]
    found = predict_from_device(AGX, SHAPES[name].sizes, prompt_tokens=1, context=context)
    assert found.tpot_ms == pytest.approx(1e3 * (n + m * context), rel=0.05)


@pytest.mark.parametrize("name", SHAPES)
def test_measured_times_per_token_are_met_within_5_percent(name: str) -> None:
    found = predict_from_device(AGX, SHAPES[name].sizes, prompt_tokens=1, context=1000)
    assert found.tpot_ms == pytest.approx(MEASURED_TPOT_MS[name], rel=0.05)


@pytest.mark.parametrize("name", SHAPES)
def test_measured_first_tokens_are_met_within_45_percent(name: str) -> None:
    for tokens, ms in FIRST_TOKEN_MS[name].items():
        found = predict_from_device(AGX, SHAPES[name].sizes, prompt_tokens=tokens, context=0)
        assert found.prefill_ms == pytest.approx(ms, rel=0.45)


@given(st.sampled_from(known_devices()), st.integers(1, 9000), st.integers(1, 9000))
def test_more_never_takes_less(device: Device, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    sizes = SHAPES["1.5B"].sizes
    little = predict_from_device(device, sizes, prompt_tokens=fewer, context=fewer)
    much = predict_from_device(device, sizes, prompt_tokens=more, context=more)
    assert little.prefill_ms <= much.prefill_ms
    assert little.tpot_ms <= much.tpot_ms


def test_it_says_what_it_is_and_has_no_percentile() -> None:
    found = predict_from_device(AGX, SHAPES["8B"].sizes, prompt_tokens=9, context=9)
    assert "measured nowhere" in found.basis
    assert not hasattr(found, "ttft") and not hasattr(found, "total")


def test_a_bundle_says_how_large_its_decoder_is(bundle: Callable[[str], Path]) -> None:
    wide, narrow = (
        decoder_sizes(Bundle.open(bundle(name)).manifest) for name in ("llama", "llama-fp16")
    )
    assert wide.weight_bytes > 1.8 * narrow.weight_bytes
    assert wide.weights == pytest.approx(narrow.weights, rel=0.1)
    assert wide.slot_bytes == 2 * narrow.slot_bytes


def test_a_module_has_its_modes_from_slow_to_fast() -> None:
    for name in dict.fromkeys(device.name for device in known_devices()):
        modes = [device for device in known_devices() if device.name == name]
        assert len({device.power_mode for device in modes}) == len(modes)
        assert modes[-1].fp16_flop_per_s == max(device.fp16_flop_per_s for device in modes)
        assert find_device(name.upper()) == modes[-1]


def test_modes_agree_with_the_modules_own_figures() -> None:
    for module_id in ("p3701-0000", "p3701-0004", "p3767-0000", "p3767-0001", "p3767-0003"):
        module = find_module(module_id)
        assert module is not None
        best = find_device(module.name)
        assert best.num_sms == module.num_sms
        assert best.gpu_max_mhz == (module.gpu_max_mhz_super or module.gpu_max_mhz)
        assert best.memory_gb_per_s == (module.memory_gb_per_s_super or module.memory_gb_per_s)


def test_dense_float16_rates_are_the_published_ones() -> None:
    assert AGX.fp16_flop_per_s / 1e12 == pytest.approx(42.6, rel=0.01)
    assert find_device("Orin Nano 8GB", "25W").fp16_flop_per_s / 1e12 == pytest.approx(15, rel=0.01)


def test_an_unknown_board_or_mode_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"board is 'Orin'; accepted: AGX Orin 64GB"):
        find_device("Orin")
    with pytest.raises(InputError, match=r"power mode is '60W'; Orin Nano 8GB has 7W, 15W, 25W"):
        find_device("orin nano 8gb", "60W")


def test_the_towers_weights_and_the_decoders_are_counted_apart(
    bundle: Callable[[str], Path],
) -> None:
    manifest = Bundle.open(bundle("llava-fp16")).manifest
    groups = manifest.weights
    tower, stored = weights_of(manifest, of_tower=True)
    assert stored == groups["tower"].bytes + groups["projector"].bytes == 2 * tower
    decoder, _ = weights_of(manifest, of_tower=False)
    parts = ("attention", "mlp", "head", "norms")
    assert decoder == sum(groups[name].bytes for name in parts) // 2
    coded, coded_bytes = weights_of(Bundle.open(bundle("llama-int4")).manifest, of_tower=False)
    assert 3 * coded_bytes < 2 * coded, "four bits and their scales"


@pytest.mark.parametrize(
    ("name", "side", "patches"), [("llava", 56, 17), ("qwen3_vl", 96, 144), ("internvl", 69, 0)]
)
def test_patches_are_those_that_the_tower_reads(
    name: str, side: int, patches: int, bundle: Callable[[str], Path]
) -> None:
    manifest = Bundle.open(bundle(name)).manifest
    found = tower_patches(manifest, side)
    tokens = manifest.tower.most_tokens(side) if manifest.tower else 0
    assert found == patches or (patches == 0 and found > tokens)


def test_a_request_waits_for_its_image_and_its_prompt(bundle: Callable[[str], Path]) -> None:
    seeing, reading = (
        predict_request(AGX, Bundle.open(bundle(name)).manifest) for name in ("llava", "llama")
    )
    assert seeing.visual_tokens == 16 and seeing.prompt_tokens == 16 + TEXT_TOKENS
    assert seeing.ttft_ms == seeing.vision_ms + seeing.prefill_ms > seeing.prefill_ms
    assert (reading.resolution, reading.visual_tokens, reading.vision_ms) == (None, 0, 0)
