"""Modules traced with fake tensors: names, axes, and one node per own op."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="tracing needs torch")
transformers = pytest.importorskip("transformers", reason="what is traced is Hugging Face's code")

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.recipe import Recipe, plan  # noqa: E402
from tightrope.export.schedules import SCHEDULES, Schedule  # noqa: E402
from tightrope.export.tracing.decoder import trace_decoder  # noqa: E402
from tightrope.export.tracing.tower import trace_tower  # noqa: E402
from tightrope.export.tracing.trace import axes_of, fake_model, fake_tensors, trace  # noqa: E402
from tightrope.interface.tensors import TensorSpec, decoder_inputs, decoder_outputs  # noqa: E402

Find = Callable[[str], Path]
X = TensorSpec("x", "activation", ("N", "S"))


@pytest.fixture
def fake() -> Iterator[None]:
    with fake_tensors():
        yield


def recipe_of(checkpoint: Find, name: str, **config: Any) -> Recipe:
    return plan(open_checkpoint(checkpoint(name)), ExportConfig(**config))


class Sums(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any, part: list[Any]) -> Any:
        return x, x + part[0] + part[1], x


@pytest.mark.usefixtures("fake")
def test_numbered_rows_are_one_parameter_and_every_output_is_a_value_of_its_own() -> None:
    rows = (X, *(TensorSpec(f"part.{i}", "activation", ("N", "S")) for i in range(2)))
    outputs = tuple(TensorSpec(name, "activation", ("N", "S")) for name in ("same", "sum", "again"))
    model = trace(Sums(), rows, outputs)
    assert [value.name for value in model.graph.inputs] == ["x", "part.0", "part.1"]
    assert [value.name for value in model.graph.outputs] == ["same", "sum", "again"]
    producers = {value.producer() for value in model.graph.outputs}
    assert None not in producers and len(producers) == 3
    assert axes_of(model, "part.1") == ["N", "S"]


@pytest.mark.usefixtures("fake")
def test_what_cannot_be_traced_is_told_in_one_line() -> None:
    class Decides(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModel, match="cannot be traced with dynamic lengths") as raised:
        trace(Decides(), (X,), (TensorSpec("y", "activation", ("N", "S")),))
    assert "\n" not in str(raised.value)


def decoder_of(recipe: Recipe, schedule: Schedule | None) -> Any:
    source = recipe.checkpoint
    with fake_tensors():
        return trace_decoder(fake_model(source.auto_class, source.config), recipe.dims, schedule)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_decoder_has_one_slot_attention_a_layer_and_the_parameters_names(
    name: str, checkpoint: Find
) -> None:
    recipe = recipe_of(checkpoint, name)
    model = decoder_of(recipe, None)
    nodes = [node.op_type for node in model.graph.all_nodes() if node.domain == "tightrope"]
    assert nodes == ["SlotAttention"] * recipe.dims.num_hidden_layers
    rows = (*decoder_inputs(recipe.dims), *decoder_outputs(recipe.dims))
    found = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    assert found == [row.name for row in rows]
    parameters = {name.removeprefix("model.") for name in model.graph.initializers}
    known = dict(recipe.checkpoint.load_model().named_parameters(remove_duplicate=False))
    weights = {name for name in parameters if name.endswith("weight")}
    assert weights and weights <= set(known)
    assert all(value.const_value is None for value in model.graph.initializers.values())


def test_a_schedule_of_two_stages_selects_twice_by_its_own_score(checkpoint: Find) -> None:
    scored: list[int] = []

    def by_key_length(given: Any) -> Any:
        scored.append(given.key.shape[1])
        return -given.key.float().norm(dim=-1).mean(1)

    schedule = Schedule(
        name="staged",
        paper="trial",
        layers=(1, 3),
        shares=(2.0, 1.0),
        default_keep="25%",
        score=by_key_length,
    )
    recipe = recipe_of(checkpoint, "llava")
    model = decoder_of(recipe, schedule)
    kinds = [node.op_type for node in model.graph.all_nodes() if node.domain == "tightrope"]
    assert kinds == [
        "SlotAttention",
        "SelectTokens",
        *["SlotAttention"] * 2,
        "SelectTokens",
        "SlotAttention",
    ]
    assert scored == [2, 2]
    names = [value.name for value in model.graph.inputs]
    assert names[-3:] == ["visual_index", "keep_ramp.0", "keep_ramp.1"]


def test_a_tower_reads_the_rows_of_its_numpy_half_and_gives_the_signals(checkpoint: Find) -> None:
    recipe = recipe_of(checkpoint, "llava")
    assert recipe.vision is not None
    source = recipe.checkpoint
    with fake_tensors():
        model = trace_tower(fake_model(source.auto_class, source.config), recipe.vision, 64)
    rows = (*recipe.vision.host.input_rows(), *recipe.vision.host.output_rows(64))
    found = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    assert found == [row.name for row in rows]


def test_a_recipe_answers_everything_before_anything_is_traced(checkpoint: Find) -> None:
    recipe = recipe_of(checkpoint, "llava", schedules=("fastv",), resolutions=(84, 56))
    assert recipe.vision is not None
    assert recipe.vision.info.resolutions == (56, 84), "the tower's own first"
    assert recipe.vision.info.kind == "clip"
    assert recipe.schedules["fastv"][0].layer == SCHEDULES["fastv"].layers[0]
    assert recipe.selectors == ("divprune", "flashvlm", "visionzip")
    assert recipe.prefill_chunk == 512
    assert recipe.precision.storage == "float16" and not recipe.precision.quantized
    text = recipe_of(checkpoint, "llama", precision="int4", prefill_chunk=32)
    assert text.vision is None and text.selectors == () and text.preprocessor == {}
    assert text.prefill_chunk == 32 and text.precision.quantized
    assert text.notes(text.checkpoint.load_model()) == []


def test_importing_the_seams_registers_nothing() -> None:
    code = (
        "import torch, tightrope.export.tracing.ops\n"
        "print(hasattr(torch.ops.tightrope, 'slot_attention'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
