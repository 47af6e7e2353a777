"""The fit finds what the times were made of, and its spread covers what it has not seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.latency import LatencyModel, PrefillCall, TowerTime, Workload
from tightrope.profiles.latency.fit import Measured, fit_model, host_ms, nonnegative_fit
from tightrope.profiles.latency.held_out import LEAST_DRAWN, fit_with_spread, left_out
from tightrope.runtime.answer import Timings

coefficients = st.lists(st.one_of(st.just(0.0), st.floats(0.01, 50)), min_size=3, max_size=3)


def timings(model: LatencyModel, work: Workload, factor: float = 1.0) -> Timings:
    """What the model's request takes, everything `factor` times as long."""
    stages = model.stages(work)
    ttft, image = stages.ttft_ms, stages.image_decode_ms + stages.preprocess_ms
    return Timings(
        image_ms=image * factor,
        image_decode_ms=stages.image_decode_ms * factor,
        preprocess_ms=stages.preprocess_ms * factor,
        vision_ms=stages.vision_ms * factor,
        select_ms=stages.select_ms * factor,
        prefill_ms=stages.prefill_ms * factor,
        decode_ms=stages.decode_ms * factor,
        ttft_ms=ttft * factor,
        total_ms=(ttft + stages.decode_ms) * factor,
    )


def works(synthetic: Any) -> Iterator[Workload]:
    """Twenty-six that span what the model counts."""
    for tokens in (40, 70, 100, 150, 220, 300, 420, 600):
        yield synthetic.text(tokens, completion_tokens=1 + tokens // 10)
    for occupied in (200, 500):
        yield replace(synthetic.text(120), prefill=(PrefillCall(120, occupied),))
    for given_up in (30, 150, 60):
        yield replace(
            synthetic.text(200, completion_tokens=40),
            prefill=(PrefillCall(200, 0, given_up),),
            context=200.0 - given_up,
            most_context=200.0 - given_up,
            evicts=True,
        )
    sources = [(1.0, 0.2), (2.0, 0.1), (8.0, 2.0), (0.3, 0.1)]
    kinds = itertools.cycle(itertools.product(("JPEG", "PNG"), sources))
    for resolution, kept in itertools.product((168, 336), (1.0, 0.5, 0.25)):
        for method in ("rounds", "ranks") if kept < 1 else (None,):
            format, (megapixels, megabytes) = next(kinds)
            visual = (resolution // 14) ** 2
            yield replace(
                synthetic.text(20 + visual * kept, completion_tokens=9),
                text_tokens=20,
                images=(synthetic.image(format, megapixels, megabytes),),
                resolution=resolution,
                visual_tokens=visual,
                visual_tokens_kept=round(visual * kept),
                selector=method,
            )
    for tokens in (80, 250):
        yield replace(synthetic.text(tokens), schedule="inside")


@given(coefficients, st.integers(0, 2**32 - 1))
def test_least_squares_finds_coefficients_that_are_not_negative(
    truth: list[float], seed: int
) -> None:
    rows = np.random.default_rng(seed).uniform(0.5, 20, (12, 3))
    rows[:, 0] = 1
    times = rows @ np.array(truth)
    found = nonnegative_fit([tuple(row) for row in rows.tolist()], times.tolist())
    assert min(found) >= 0
    assert rows @ np.array(found) == pytest.approx(times, rel=1e-4, abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_no_smaller_error_is_near_what_was_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, times = rng.uniform(0, 5, (9, 3)), rng.uniform(1, 50, 9)

    def error(values: Any) -> float:
        return float((((rows @ values - times) / times) ** 2).sum())

    found = np.array(nonnegative_fit([tuple(row) for row in rows.tolist()], times.tolist()))
    for step in rng.normal(0, 0.3, (40, 3)):
        assert error(found) <= error(np.maximum(found + step, 0)) + 1e-9


def test_columns_that_never_vary_are_left_out() -> None:
    assert nonnegative_fit([(1.0, 576.0, 0.0)] * 3, [5.0, 5.0, 5.0]) == pytest.approx((5, 0, 0))
    assert nonnegative_fit([], []) == ()


def test_a_fit_finds_the_model_that_made_the_times(synthetic: Any) -> None:
    truth = synthetic.MODEL
    points = [Measured(work, (timings(truth, work),)) for work in works(synthetic)]
    found = fit_model(points)
    for work in works(synthetic):
        stages, wanted = found.stages(work), truth.stages(work)
        for name in ("image_decode_ms", "preprocess_ms", "vision_ms", "select_ms", "decode_ms"):
            assert getattr(stages, name) == pytest.approx(getattr(wanted, name), rel=1e-3), name
        assert stages.host_ms == pytest.approx(wanted.host_ms, rel=1e-3)
        # Its knots are elsewhere: a line through as many pieces, not the same ones.
        assert stages.prefill_ms == pytest.approx(wanted.prefill_ms, rel=0.08)
    assert found.stepping.token_ms == pytest.approx(4, rel=1e-3)
    assert found.stepping.slot_ms == pytest.approx(0.002, rel=1e-2)
    assert found.decoding["JPEG"].megabyte_ms == pytest.approx(10, rel=1e-3)
    assert [row.image_ms for row in found.tower] == pytest.approx([12, 60])


def test_where_images_differ_in_their_tiles_the_tower_is_fitted_to_their_tokens(
    synthetic: Any,
) -> None:
    tower = (TowerTime(resolution=336, image_ms=60.0, visual_tokens=300.0),)
    truth = replace(synthetic.MODEL, tower=tower)
    asked = [work for work in works(synthetic) if not work.images]
    asked += [
        replace(
            synthetic.text(20 + tokens),
            images=(synthetic.image(),),
            resolution=336,
            visual_tokens=tokens,
            visual_tokens_kept=tokens,
        )
        for tokens in (100.0, 300.0, 500.0)
    ]
    (row,) = fit_model([Measured(work, (timings(truth, work),)) for work in asked]).tower
    assert row.visual_tokens == 300.0 and row.image_ms == pytest.approx(60.0)


def test_a_slow_request_among_many_changes_no_coefficient(synthetic: Any) -> None:
    truth = synthetic.MODEL
    some = list(works(synthetic))
    calm = [Measured(work, (timings(truth, work),) * 5) for work in some]
    disturbed = [
        Measured(work, (*(timings(truth, work),) * 4, timings(truth, work, 9.0))) for work in some
    ]
    assert fit_model(disturbed) == fit_model(calm)


def test_what_stages_leave_of_the_first_token_is_the_hosts() -> None:
    assert host_ms(Timings(image_ms=1, vision_ms=2, select_ms=3, prefill_ms=4, ttft_ms=12)) == 2
    assert host_ms(Timings(prefill_ms=4, ttft_ms=3.9)) == 0


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0.02, 0.15)))
def test_the_spread_covers_requests_that_the_fit_has_not_seen(
    synthetic: Any, seed: int, noise: float
) -> None:
    rng, truth = np.random.default_rng(seed), synthetic.MODEL

    def run(work: Workload) -> Timings:
        return timings(truth, work, float(np.exp(rng.normal(0, noise))))

    points = [Measured(work, tuple(run(work) for _ in range(15))) for work in works(synthetic)]
    model, held_out = fit_with_spread(points)
    asked = [(work, run(work)) for work in works(synthetic) for _ in range(40)]
    late = [taken.ttft_ms > model.predict(work).ttft.percentile_ms(95) for work, taken in asked]
    assert 0.01 <= np.mean(late) <= 0.1
    # Kinds that are left out lie further away: two of a method leave one to tell of the other.
    assert 1 <= held_out.ttft_above_p95_percent <= 25
    assert held_out.ttft_mape_percent < 100 * noise + 3
    assert held_out.tpot_mape_percent < 100 * noise + 1


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0.8, 1.1)))
def test_requests_drawn_at_random_tell_the_spread(synthetic: Any, seed: int, speed: float) -> None:
    """However little the kinds that were fitted are like them."""
    rng, truth = np.random.default_rng(seed), synthetic.MODEL

    def drawn(count: int) -> list[Measured]:
        return [
            Measured(work, (timings(truth, work, speed * float(np.exp(rng.normal(0, 0.05)))),))
            for _ in range(count)
            for work in works(synthetic)
        ]

    kinds = [(work, float(np.exp(rng.normal(0, 0.1)))) for work in works(synthetic)]
    points = [Measured(work, (timings(truth, work, off),) * 3) for work, off in kinds]
    some, others = drawn(10), drawn(40)
    model, held_out = fit_with_spread(points, some)
    assert held_out.drawn == len(some)
    asked = [(each.runs[0].ttft_ms, model.predict(each.work).ttft) for each in others]
    assert 0.01 <= np.mean([ms > told.percentile_ms(95) for ms, told in asked]) <= 0.1
    assert 0.4 <= np.mean([ms > told.percentile_ms(50) for ms, told in asked]) <= 0.6
    assert 1 <= held_out.ttft_above_p95_percent <= 11
    errors = [abs(told.percentile_ms(50) / ms - 1) for ms, told in asked]
    assert held_out.ttft_mape_percent == pytest.approx(100 * np.mean(errors), rel=0.25)
    few = some[: LEAST_DRAWN - 1]
    assert fit_with_spread(points, few) == fit_with_spread(points)


def test_a_point_that_alone_has_something_is_not_held_out(synthetic: Any) -> None:
    truth = synthetic.MODEL
    alone = replace(synthetic.text(30), images=(synthetic.image("PNG"),), resolution=168)
    points = [
        Measured(work, (timings(truth, work),))
        for work in (*(work for work in works(synthetic) if not work.images), alone)
    ]
    assert left_out(points, len(points) - 1) is None
    assert left_out(points, 0) is not None
    model, held_out = fit_with_spread(points)
    assert model.ttft.ratios == tuple(sorted(model.ttft.ratios))
    assert held_out.tpot_mape_percent < 1
