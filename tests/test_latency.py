"""What a latency model predicts: sums that can be done by hand, and never less for more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.latency import (
    PERCENTS,
    Decoding,
    Estimate,
    PrefillCall,
    SourceImage,
    Spread,
    TowerTime,
    check_model,
)
from tightrope.latency.parts import SKIPPED

tokens = st.floats(1, 5000)
sizes = st.floats(0.01, 60)


def test_every_stage_is_a_sum_of_what_it_does(synthetic: Any) -> None:
    work = replace(
        synthetic.text(150, completion_tokens=5),
        text_tokens=20,
        images=(synthetic.image("JPEG", 2.0, 0.5),),
        resolution=336,
        visual_tokens=576,
        visual_tokens_kept=144,
        selector="rounds",
    )
    stages = synthetic.MODEL.predict(work).stages
    assert stages.image_decode_ms == pytest.approx(0.5 + 2 * 4 + 0.5 * 10)
    assert stages.preprocess_ms == pytest.approx(0.25 + 2 * 3 + 0.336**2 * 20)
    assert stages.vision_ms == 60
    assert stages.select_ms == pytest.approx(1 + 576 * 144 * 1e-4)
    assert stages.prefill_ms == pytest.approx(2 + 100 * 0.1 + 50 * 0.2 + 5 + 3)
    assert stages.host_ms == pytest.approx(1 + 20 * 0.01)
    assert stages.decode_ms == pytest.approx(1 + 4 * 4 + 0.002 * (150 + 151 + 152 + 153))
    parts = (stages.image_decode_ms, stages.preprocess_ms, stages.vision_ms, stages.select_ms)
    assert stages.ttft_ms == pytest.approx(sum(parts) + stages.prefill_ms + stages.host_ms)


def test_times_are_told_with_their_spread(synthetic: Any) -> None:
    prediction = synthetic.MODEL.predict(synthetic.text(50, completion_tokens=3))
    stages = prediction.stages
    assert prediction.ttft.fitted_ms == pytest.approx(stages.ttft_ms)
    assert prediction.tpot.fitted_ms == pytest.approx(stages.decode_ms / 2)
    assert prediction.total.fitted_ms == pytest.approx(stages.ttft_ms + stages.decode_ms)
    told = prediction.to_dict()["total"]
    assert told["mean_ms"] == pytest.approx(1.02 * prediction.total.fitted_ms)
    assert told["p95_ms"] == pytest.approx(1.09 * prediction.total.fitted_ms)


def test_tiles_are_paid_for_one_by_one(synthetic: Any) -> None:
    tower = (TowerTime(resolution=336, image_ms=60.0, visual_tokens=400.0),)
    model = replace(synthetic.MODEL, tower=tower)
    one = replace(
        synthetic.text(50), images=(synthetic.image(),), resolution=336, visual_tokens=100.0
    )
    assert model.stages(one).vision_ms == pytest.approx(15.0)
    assert model.stages(replace(one, visual_tokens=1200.0)).vision_ms == pytest.approx(180.0)


def test_an_image_seen_before_is_not_decoded(synthetic: Any) -> None:
    new = replace(synthetic.text(50), images=(synthetic.image(),) * 2, resolution=336)
    known = replace(new, images=(synthetic.image(), replace(synthetic.image(), known=True)))
    before, after = (synthetic.MODEL.predict(work).stages for work in (new, known))
    assert after.image_decode_ms == pytest.approx(before.image_decode_ms / 2)
    assert (before.vision_ms, after.vision_ms) == (120, 60)
    assert after.preprocess_ms == pytest.approx(before.preprocess_ms / 2)


def test_pixels_are_hashed_to_be_recognised() -> None:
    pixels = SourceImage(format="array", width=1000, height=500)
    units = Decoding.units(pixels, 336)
    assert Decoding.units(replace(pixels, known=True), 336) == units == (1.0, 0.5, 0.0)


def test_what_is_left_out_of_a_jpeg_is_not_paid_for(synthetic: Any) -> None:
    whole = SourceImage(format="JPEG", width=3840, height=2160, encoded_bytes=1_000_000)
    less = replace(whole, detail=1.0)
    scales = {resolution: less.scale(resolution) for resolution in (168, 336, 672, 1344)}
    assert scales == {168: 8, 336: 4, 672: 2, 1344: 1}
    for resolution, scale in scales.items():
        new = replace(synthetic.text(50), images=(whole,), resolution=resolution)
        before, after = (
            synthetic.MODEL.stages(replace(new, images=(image,))) for image in (whole, less)
        )
        left_out = 8.2944 * (1 - 1 / scale**2)
        assert before.image_decode_ms - after.image_decode_ms == pytest.approx(
            4 * left_out * (1 - SKIPPED)
        )
        assert before.preprocess_ms - after.preprocess_ms == pytest.approx(3 * left_out)


def test_a_known_prefix_saves_its_tokens_and_costs_its_slots(synthetic: Any) -> None:
    whole = synthetic.text(400)
    rest = replace(whole, prefill=(PrefillCall(100, 300),))
    whole_ms, rest_ms = (synthetic.MODEL.predict(work).stages.prefill_ms for work in (whole, rest))
    assert rest_ms == pytest.approx(2 + 100 * 0.1 + 100 * 300 * 1e-4)
    assert rest_ms < whole_ms


def test_evictions_and_schedules_cost_what_was_measured_of_them(synthetic: Any) -> None:
    plain = synthetic.text(50, completion_tokens=11)
    full = replace(
        plain,
        prefill=(PrefillCall(50, 0, 20),),
        context=30.0,
        most_context=34.0,
        evicts=True,
        schedule="inside",
    )
    stages = synthetic.MODEL.predict(full).stages
    assert stages.prefill_ms == pytest.approx(2 + 5 + 3 + 20 * 0.01 + 4)
    attended = 30 + 31 + 32 + 33 + 6 * 34
    assert stages.decode_ms == pytest.approx(1 + 10 * 4 + 0.002 * attended + 6 * 0.5)


def test_a_resolution_between_two_is_between_them_by_area(synthetic: Any) -> None:
    def at(resolution: int) -> float:
        work = replace(synthetic.text(9), images=(synthetic.image(),), resolution=resolution)
        return float(synthetic.MODEL.predict(work).stages.vision_ms)

    assert at(168) == 12
    share = (224**2 - 168**2) / (336**2 - 168**2)
    assert at(224) == pytest.approx(12 + share * 48)
    assert at(84) == pytest.approx(12 / 4)
    assert at(672) == pytest.approx(60 * 4)


def test_what_was_not_measured_is_named_and_taken_for_the_dearest(synthetic: Any) -> None:
    work = replace(
        synthetic.text(9),
        images=(synthetic.image("TIFF", 1, 0),),
        resolution=168,
        visual_tokens=144,
        visual_tokens_kept=36,
        selector="mine",
        schedule="other",
    )
    prediction = synthetic.MODEL.predict(work)
    assert prediction.unmeasured == ("format TIFF", "selector mine", "schedule other")
    assert prediction.stages.image_decode_ms == pytest.approx(1 + 30)
    assert prediction.stages.select_ms == pytest.approx(1 + 144 * 36 * 1e-4)


@given(tokens, tokens)
def test_more_tokens_never_take_less(synthetic: Any, one: float, other: float) -> None:
    fewer, more = sorted((one, other))

    def read(count: float) -> float:
        return float(synthetic.MODEL.predict(synthetic.text(count)).total.fitted_ms)

    def attend(count: float) -> float:
        work = synthetic.text(50, context=count, completion_tokens=9)
        return float(synthetic.MODEL.predict(replace(work, most_context=9e9)).total.fitted_ms)

    for time in (read, attend):
        assert time(fewer) <= time(more) + 1e-9


@given(sizes, sizes, st.sampled_from(("JPEG", "PNG", "BMP")))
def test_a_larger_image_never_takes_less(
    synthetic: Any, one: float, other: float, format: str
) -> None:
    def at(megapixels: float) -> float:
        source = synthetic.image(format, megapixels, megapixels / 4)
        work = replace(synthetic.text(9), images=(source,), resolution=336)
        return float(synthetic.MODEL.predict(work).ttft.fitted_ms)

    fewer, more = sorted((one, other))
    assert at(fewer) <= at(more) + 1e-9


@given(st.integers(301, 100_000))
def test_long_prompts_go_on_in_a_straight_line(synthetic: Any, length: int) -> None:
    here, next_one = (
        synthetic.MODEL.predict(synthetic.text(count)).stages.prefill_ms
        for count in (length, length + 1)
    )
    assert next_one - here == pytest.approx(0.25, rel=1e-6)


@given(st.lists(st.floats(0.1, 9), min_size=len(PERCENTS), max_size=len(PERCENTS)))
def test_percentiles_ascend_and_meet_what_was_kept(values: list[float]) -> None:
    spread = Spread(mean=1.0, ratios=tuple(sorted(values)))
    asked = [percent / 2 for percent in range(201)]
    found = [Estimate(10.0, spread).percentile_ms(percent) for percent in asked]
    assert found == sorted(found)
    for percent, ratio in zip(PERCENTS, spread.ratios, strict=True):
        assert spread.percentile(percent) == pytest.approx(ratio)


def test_a_good_model_passes_its_check(synthetic: Any) -> None:
    check_model(synthetic.MODEL)


@pytest.mark.parametrize("number", [-1.0, math.nan, math.inf])
def test_figures_that_no_fit_gives_are_refused(synthetic: Any, number: float) -> None:
    model = synthetic.MODEL
    wrong = replace(model, hosting=replace(model.hosting, token_ms=number))
    with pytest.raises(ValueError, match="hosting: token_ms"):
        check_model(wrong)


def test_what_has_to_ascend_is_checked(synthetic: Any) -> None:
    model = synthetic.MODEL
    for wrong in (
        replace(model, ttft=replace(model.ttft, ratios=model.ttft.ratios[::-1])),
        replace(model, tpot=replace(model.tpot, ratios=model.tpot.ratios[1:])),
        replace(model, prefilling=replace(model.prefilling, knots=(0.0, 300.0, 100.0))),
        replace(model, prefilling=replace(model.prefilling, knots=(1.0, 100.0, 300.0))),
        replace(model, prefilling=replace(model.prefilling, knots=(0.0,))),
        replace(model, tower=(TowerTime(resolution=336, image_ms=1.0),) * 2),
    ):
        with pytest.raises(ValueError, match=r"ascending|order"):
            check_model(wrong)
