"""What engines would take of a board, counted by hand for a small bundle and for Qwen3-VL-2B."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle, Manifest
from tightrope.errors import BackendError, DeviceUnavailable, InputError
from tightrope.jetson import facts as facts_file
from tightrope.jetson.facts import BoardFacts, facts_here, facts_of
from tightrope.jetson.memory import COPIES, MemoryPlan, plan_memory, refuse_too_large
from tightrope.jetson.roofline import decoder_sizes
from tightrope.runtime.memory import resident_memory

Find = Callable[[str], Path]
NANO = facts_of("orin-nano-8gb")


@pytest.fixture
def manifest(bundle: Find) -> Manifest:
    return Bundle.open(bundle("llava-fp16")).manifest


def with_memory(available: int | None) -> BoardFacts:
    return replace(NANO, memory_available_bytes=available)


def of(plan: MemoryPlan, what: str) -> int:
    (line,) = [line for line in (*plan.running, *plan.building) if line.what.startswith(what)]
    return line.bytes


def test_weights_and_slots_are_counted(manifest: Manifest) -> None:
    plan = plan_memory(manifest, NANO)
    groups = manifest.weights
    decoder = sum(groups[name].bytes for name in ("attention", "mlp", "head", "norms"))
    tower = groups["tower"].bytes + groups["projector"].bytes
    assert of(plan, "weights of decode") == decoder
    assert [line.bytes for line in plan.running if line.what.startswith("weights of prefill")] == [
        *(decoder, decoder)  # the schedule's is one of its own
    ]
    assert of(plan, "weights of vision") == tower
    dims = manifest.dims
    lanes = dims.num_hidden_layers * dims.num_key_value_heads * dims.head_dim
    assert of(plan, "slots at capacity") == 2 * 2 * lanes * manifest.slots
    assert of(plan, "the largest graph's weights") == COPIES * decoder
    assert all(line.source for line in (*plan.running, *plan.building))


def test_slots_in_int8_take_a_byte_a_number_and_a_scale_each(manifest: Manifest) -> None:
    coded, dims = replace(manifest, kv_cache="int8"), manifest.dims
    lanes = dims.num_hidden_layers * dims.num_key_value_heads
    each = 2 * lanes * (dims.head_dim + 4)
    assert of(plan_memory(coded, NANO), "slots at capacity") == each * manifest.slots
    assert decoder_sizes(coded).slot_bytes == each
    assert decoder_sizes(manifest).slot_bytes == 2 * lanes * 2 * dims.head_dim
    told, plain = resident_memory(coded), resident_memory(manifest)
    differ = {name: told[name] for name in told if told[name] != plain[name]}
    assert differ == {"slots at capacity, standard graphs": each * manifest.slots}
    short = with_memory(1)
    hint = "--kv-cache int8"
    assert any(hint in each for each in plan_memory(manifest, short).measures)
    assert not any(hint in each for each in plan_memory(coded, short).measures)


def test_one_engine_less_is_planned_where_two_do_not_fit(manifest: Manifest) -> None:
    both = plan_memory(manifest, with_memory(None))
    assert both.fits and not both.alone and not both.measures
    decoder = of(both, "weights of decode")
    short = both.running_bytes - decoder // 2
    alone = plan_memory(manifest, with_memory(short))
    assert alone.alone and alone.fits
    assert alone.running_bytes == both.running_bytes - decoder
    refuse_too_large(alone)


def test_what_does_not_fit_at_all_is_refused_with_what_would_help(manifest: Manifest) -> None:
    plan = plan_memory(manifest, with_memory(10 << 20))
    assert not plan.fits
    with pytest.raises(
        BackendError, match=r"takes 0\.\d GiB, 0\.0 GiB are available: export with "
    ):
        refuse_too_large(plan)
    text = "; ".join(plan.measures)
    assert "systemctl isolate multi-user.target" in text and "--slots than 2048" in text
    assert "without --schedule" in text


def test_a_head_in_parts_asks_for_one_of_them_in_one_piece(manifest: Manifest) -> None:
    whole = plan_memory(manifest, NANO).contiguous_bytes
    parts = plan_memory(replace(manifest, head_columns=64), NANO).contiguous_bytes
    assert parts == int(1.73 * 2 * 64 * manifest.dims.hidden_size) < whole


def test_contiguous_memory_that_is_short_names_the_boot_option(manifest: Manifest) -> None:
    tight = replace(NANO, cma_bytes=256 << 20, cma_free_bytes=1 << 10)
    (hint,) = plan_memory(manifest, tight).measures
    assert "cma=320M" in hint and "/boot/extlinux/extlinux.conf" in hint
    assert plan_memory(manifest, replace(tight, cma_free_bytes=200 << 20)).measures == ()


def test_this_machine_without_gpu_and_jetson_is_no_board(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="engines are built on the board"):
        facts_here("10.3.0", tmp_path)


def test_a_board_that_no_table_knows_works_by_what_is_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p9999-0000\0nvidia,tegra999\0")
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 2048 kB\nCmaFree: 1024 kB\n")
    monkeypatch.setattr(facts_file, "gpu_capability", lambda: "12.0")
    found = facts_here("11.4.0", tmp_path)
    assert (found.name, found.compute_capability, found.device) == ("p9999-0000", "12.0", None)
    assert (found.memory_available_bytes, found.cma_free_bytes) == (2 << 20, 1 << 20)


def test_a_boards_name_may_be_written_in_any_way() -> None:
    assert facts_of("ORIN nano 8gb").name == NANO.name == "Orin Nano 8GB"
    assert NANO.memory_available_bytes == 6_800_000_000 and not NANO.is_here
    with pytest.raises(InputError, match="accepted: AGX Orin 64GB"):
        facts_of("orin")
