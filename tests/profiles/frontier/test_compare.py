"""Bundles, machines and tasks held against each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import InputError, ProfileError
from tightrope.latency_file import LatencyRecord, latency_file, write_latency
from tightrope.paired import compare
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.compare import Compared, compare_sides
from tightrope.profiles.frontier.sides import Side, find_sides
from tightrope.profiles.frontier.typical import typical
from tightrope.quality_file import find_quality
from tightrope.runtime.model import Model, load

SMALL, MIDDLE, LARGE = (OperatingPoint(resolution=side) for side in (28, 56, 84))
OTHER = "77" * 32


class Bench:
    """Two bundles of one model, and what is written of them."""

    def __init__(self, models: Sequence[Model], files: Any, synthetic: Any, folder: Path) -> None:
        self.models, self._files, self._synthetic, self._folder = models, files, synthetic, folder

    def quality(self, model: Model, rights: Sequence[int], **options: Any) -> None:
        points = [
            self._files.measured_point(point, self._files.share(right, 100))
            for point, right in zip((LARGE, MIDDLE, SMALL), rights, strict=True)
        ]
        self._files.write_quality(model.bundle, points, **options)

    def record(self, model: Model, *, slower: float = 1.0, **key: Any) -> LatencyRecord:
        record = self._synthetic.RECORD
        base = record.model
        spread = replace(base.total, ratios=tuple(slower * ratio for ratio in base.total.ratios))
        made: LatencyRecord = replace(
            record,
            key=replace(record.key, bundle=model.bundle.digest, **key),
            model=replace(base, total=spread),
        )
        return made

    def latency(self, model: Model, **options: Any) -> Path:
        return write_latency(model.bundle, self.record(model, **options))

    def file(self, model: Model, name: str, **options: Any) -> Path:
        """A latency file that lies elsewhere."""
        file = self._folder / name
        file.write_text(json.dumps(self.record(model, **options).to_dict()), encoding="utf-8")
        return file

    def compared(
        self, models: Sequence[Model], files: Sequence[Path] = (), tasks: Sequence[str] = ()
    ) -> Compared:
        asked = [(model, typical(model, None, [])) for model in models]
        return compare_sides(find_sides(asked, files, tasks))


@pytest.fixture
def bench(
    bundle: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frontier_files: Any,
    synthetic: Any,
) -> Bench:
    """Copies, so that each bundle has a state folder of the test's own beside it."""
    monkeypatch.delenv("TIGHTROPE_STATE", raising=False)
    models = []
    for name in ("llava", "llava-fp16"):
        copy = shutil.copytree(bundle(name), tmp_path / f"{name}.bundle")
        models.append(load(copy, "onnxruntime", 1))
    return Bench(models, frontier_files, synthetic, tmp_path)


def verdicts(compared: Compared) -> list[str | None]:
    return [found.verdicts[1] for found in compared.deadlines]


def test_two_precisions_are_told_apart_question_by_question(bench: Bench) -> None:
    one, other = bench.models
    bench.quality(one, (90, 70, 40))
    bench.quality(other, (90, 40, 40))
    bench.latency(one)
    bench.latency(other)
    compared = bench.compared([one, other])
    assert compared.names == ("llava.bundle, fp32", "llava-fp16.bundle, fp16")
    assert [point.point for point in compared.points] == [LARGE, MIDDLE, SMALL]
    first, second = (find_quality(model.bundle, None) for model in (one, other))
    assert first is not None and second is not None
    found = compared.points[1].against_first[1]
    assert found == compare(second.points[1], first.points[1])
    assert found is not None and found.told_apart and found.difference == pytest.approx(-0.3)
    assert found.interval[1] < 0
    assert verdicts(compared) == ["as good", "worse", "as good"]
    assert compared.notes == ()


def test_a_slower_board_takes_other_points_of_equal_worth(bench: Bench) -> None:
    (model, _) = bench.models
    bench.quality(model, (90, 70, 40))
    bench.latency(model)
    file = bench.file(model, "nano.json", board="Orin Nano 4GB", slower=1.6)
    compared = bench.compared([model], [file])
    assert compared.names == ("Orin Nano 8GB", "Orin Nano 4GB")
    # Of the same points nothing differs but their time.
    for point in compared.points:
        here, there = point.sides
        assert here is not None and there is not None and point.against_first[1] is None
        assert here.quality == there.quality
        assert here.p99_ms is not None and there.p99_ms == pytest.approx(1.6 * here.p99_ms)
    assert verdicts(compared)[0] == "not in time"
    assert verdicts(compared)[-1] == "as good"
    assert "worse" in verdicts(compared) and "better" not in verdicts(compared)
    last = compared.deadlines[-1]
    assert last.to_ms is None and [worth and worth.point for worth in last.sides] == [LARGE, LARGE]
    edges = [found.from_ms for found in compared.deadlines]
    assert edges == sorted(edges)
    assert [found.to_ms for found in compared.deadlines[:-1]] == edges[1:]


def test_a_faster_mode_alone_keeps_the_shortest_deadlines(bench: Bench) -> None:
    (model, _) = bench.models
    bench.quality(model, (90, 70, 40))
    bench.latency(model)
    bench.latency(model, power_mode="MAXN_SUPER", slower=0.5)
    compared = bench.compared([model])
    assert compared.names == ("25W", "MAXN_SUPER")
    assert verdicts(compared)[0] == "alone"


def test_other_dates_of_one_machine_are_sides_and_copies_are_not(bench: Bench) -> None:
    (model, _) = bench.models
    bench.quality(model, (90, 70, 40))
    bench.latency(model)
    copy = bench.file(model, "copy.json")
    with pytest.raises(InputError, match="nothing to compare it with; name another bundle"):
        bench.compared([model], [copy])
    old = bench.file(model, "old.json")
    values = json.loads(old.read_text(encoding="utf-8")) | {"date": "2026-10-01T08:00:00+00:00"}
    old.write_text(json.dumps(values), encoding="utf-8")
    assert bench.compared([model], [old]).names == (
        "2026-11-27T12:00:00+00:00",
        "2026-10-01T08:00:00+00:00",
    )


def test_two_tasks_of_one_bundle_are_shown_and_not_judged(bench: Bench) -> None:
    (model, _) = bench.models
    bench.quality(model, (90, 70, 40))
    bench.quality(model, (60, 50, 40), name="others", task=OTHER)
    bench.latency(model)
    compared = bench.compared([model])
    assert set(verdicts(compared)) == {"other questions"}
    assert compared.points == ()
    assert "asks other questions than 'others'" in " ".join(compared.notes)
    with pytest.raises(InputError, match="nothing to compare"):
        bench.compared([model], tasks=["others"])


def test_agreement_compares_no_two_bundles(bench: Bench) -> None:
    one, other = bench.models
    for model in bench.models:
        bench.quality(model, (90, 70, 40))
        bench.latency(model)
    real = find_sides([(model, typical(model, None, [])) for model in (one, other)], [], [])
    sides = [_by_agreement(side) for side in real]
    with pytest.raises(ProfileError, match="agreement is with each bundle's own unpruned answers"):
        compare_sides(sides)


def test_without_anything_in_common_nothing_is_compared(bench: Bench) -> None:
    one, other = bench.models
    bench.quality(one, (90, 70, 40))
    bench.quality(other, (90, 70, 40), name="others", task=OTHER)
    bench.latency(one)
    bench.latency(other)
    with pytest.raises(ProfileError, match=r"nothing in common to compare.*by the same task"):
        bench.compared([one, other])


def test_a_missing_half_names_the_command_that_makes_it(bench: Bench) -> None:
    one, other = bench.models
    bench.quality(one, (90, 70, 40))
    with pytest.raises(ProfileError, match=r"no latency was measured of .*--latency-only"):
        bench.compared([one])
    bench.latency(one)
    bench.latency(other)
    with pytest.raises(ProfileError, match=r"no quality was measured of .*--quality-only"):
        bench.compared([one, other])
    with pytest.raises(ProfileError, match="by task 'that'; there is: scenes"):
        bench.compared([one], tasks=["that"])


def test_a_file_of_another_bundle_is_refused_and_a_damaged_one_stays(
    bench: Bench, tmp_path: Path
) -> None:
    one, other = bench.models
    bench.quality(one, (90, 70, 40))
    bench.latency(one)
    with pytest.raises(ProfileError, match=r"is none of those named; name that one as well"):
        bench.compared([one], [bench.file(other, "foreign.json")])
    damaged = tmp_path / "damaged.json"
    for content in ('{"schema": 1', "[]", '{"schema": 99}', '{"schema": 1, "key": {}}'):
        damaged.write_text(content, encoding="utf-8")
        with pytest.raises(ProfileError, match=r"damaged\.json is no latency file"):
            bench.compared([one], [damaged])
        assert damaged.read_text(encoding="utf-8") == content
    with pytest.raises(ProfileError, match=r"lost\.json is no latency file"):
        bench.compared([one], [tmp_path / "lost.json"])
    latency_file(one.bundle, bench.record(one).key).write_text("{", encoding="utf-8")
    with pytest.raises(ProfileError, match="is no latency file"):
        bench.compared([one])


def _by_agreement(side: Side) -> Side:
    key = replace(side.quality.key, measure="agreement")
    return replace(side, quality=replace(side.quality, key=key))
