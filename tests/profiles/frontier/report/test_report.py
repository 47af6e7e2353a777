"""What a report shows, and what it is written as."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from tightrope.errors import InputError, ProfileError
from tightrope.latency_file import latency_file
from tightrope.point import OperatingPoint, in_words
from tightrope.profiles.frontier.plans import Deadlines
from tightrope.profiles.frontier.report.images import WIDTH, write_images
from tightrope.profiles.frontier.report.page import page, write_page
from tightrope.profiles.frontier.report.plots import plots
from tightrope.profiles.frontier.report.records import AXES, LATENCY, LEFT, ON_FRONTIER, records_by
from tightrope.profiles.frontier.report.report import Report, make_report
from tightrope.profiles.frontier.report.themes import DARK, LIGHT, themed
from tightrope.profiles.frontier.typical import typical
from tightrope.quality_file import find_quality
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

pytest.importorskip("vl_convert", reason="plots are drawn by vl-convert")

MOST_BYTES = 6_000_000


def made(model: Model) -> Report:
    return make_report(model, typical(model, None, []))


def test_points_are_numbered_by_time_and_joined_where_none_is_better(profiled: Model) -> None:
    report = made(profiled)
    assert list(report.numbers.values()) == list(range(1, 8))
    found = records_by(report, LATENCY)
    rows = {row.point: row for row in report.frontier.rows}
    numbers = {number: point for point, number in report.numbers.items()}
    joined = [numbers[each["number"]] for each in found if each["status"] == ON_FRONTIER]
    assert joined == [row.point for row in report.best]
    assert rows[OperatingPoint(resolution=84)].point in joined
    left = [numbers[each["number"]] for each in found if each["status"] == LEFT]
    assert [rows[point].beaten_by for point in left] == [OperatingPoint(resolution=56)]
    assert sum(each["knee"] for each in found) == 1
    for each in found:
        assert each["low"] < each["quality"] < each["high"] and each["p50"] < each["p99"]


def test_memory_has_a_frontier_of_its_own(profiled: Model) -> None:
    report = made(profiled)
    slots = next(axis for axis in AXES if axis.name == "slots")
    found = sorted(records_by(report, slots), key=lambda each: each["slot_mib"])
    best = [each for each in found if each["status"] == ON_FRONTIER]
    for each in found:
        if each["status"] not in (ON_FRONTIER, LEFT):
            assert any(
                other["slot_mib"] <= each["slot_mib"] and other["quality"] >= each["quality"]
                for other in best
            )
    qualities = [each["quality"] for each in best]
    assert qualities == sorted(qualities)


def test_energy_is_drawn_where_it_was_measured_alone(profiled: Model) -> None:
    names = [plot.name for plot in plots(made(profiled))]
    assert names == ["latency", "slots", "memory", "stages", "types"]


def test_types_that_lose_most_come_first(profiled: Model) -> None:
    report = made(profiled)
    best, cheapest = report.best[-1], report.best[0]
    counts = report.by_type(best)
    assert sum(found.n for found in counts.values()) == 120
    losses = [
        (report.by_type(cheapest)[name].accuracy or 0) - (counts[name].accuracy or 0)
        for name in report.types_by_loss()
    ]
    assert losses == sorted(losses) and len(losses) == 3


def test_the_slider_has_what_the_planner_says(profiled: Model) -> None:
    report = made(profiled)
    told = json.loads(_data(page(report, plots(report))))["plans"]
    quality = find_quality(profiled.bundle, None)
    assert quality is not None
    planner = Deadlines(profiled, typical(profiled, None, []), report.latency, quality)
    taken = set()
    for each in told[::5]:
        plan = planner.plan(each["deadline"]).plan
        assert each["point"] == (None if plan is None else report.numbers[plan.point])
        assert each["name"] == ("" if plan is None else in_words(plan.point))
        taken.add(each["point"])
    assert None in taken and len(taken) >= 3


def _data(html: str) -> str:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_is_whole_in_one_small_file(profiled: Model, tmp_path: Path) -> None:
    report = made(profiled)
    file = tmp_path / "deep" / "report.html"
    write_page(report, plots(report), file)
    html = file.read_text(encoding="utf-8")
    assert file.stat().st_size < MOST_BYTES
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert "<b>where &amp; when" not in html and "&lt;b&gt;where &amp; when" in html
    for words in ("onnxruntime", "2026-11-27T12:00:00", "scenes", "84 px"):
        assert words in html, words
    key = latency_key(profiled.bundle, profiled.backend)
    assert key.board in html and f"{key.threads} threads" in html
    shown = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=|url\(|@import", shown)


def test_images_are_drawn_without_a_browser(profiled: Model, tmp_path: Path) -> None:
    drawn = plots(made(profiled))
    written = write_images(drawn, tmp_path / "images")
    assert sorted(file.name for file in written) == sorted(
        f"{plot.name}.{ending}" for plot in drawn for ending in ("png", "svg")
    )
    for file in written:
        if file.suffix == ".png":
            with Image.open(file) as image:
                image.load()
                assert image.width >= WIDTH and len(image.getcolors(1 << 24) or []) > 4
        else:
            root = ElementTree.parse(file).getroot()
            assert root.tag.endswith("svg") and "@" not in file.read_text(encoding="utf-8")


def test_every_colour_that_a_plot_names_is_in_both_themes(profiled: Model) -> None:
    assert set(DARK) == set(LIGHT)
    for plot in plots(made(profiled)):
        for theme in (LIGHT, DARK):
            assert '"@' not in json.dumps(themed(plot.spec, theme))


def test_files_from_before_there_were_types_say_how_to_have_them(
    profiled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = made(profiled)
    quality = report.quality
    without = _replaced(report, quality=_replaced(quality, types={}))
    drawn = plots(without)
    assert "types" not in [plot.name for plot in drawn]
    assert "--quality-only</code> adds them and asks nothing again" in page(without, drawn)


def _replaced(value: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(value, **changes)


def test_without_quality_the_error_names_the_command(model: Model) -> None:
    with pytest.raises(ProfileError, match=r"no quality was measured of .*--quality-only"):
        made(model)


def test_without_latency_the_error_names_the_command(profiled: Model) -> None:
    key = latency_key(profiled.bundle, profiled.backend)
    latency_file(profiled.bundle, key).unlink()
    with pytest.raises(ProfileError, match=r"no latency was measured for .*--latency-only"):
        made(profiled)


def test_files_of_another_bundle_or_task_are_refused(profiled: Model, frontier_files: Any) -> None:
    with pytest.raises(ProfileError, match="no quality was measured by task 'others'"):
        make_report(profiled, typical(profiled, None, []), task="others")
    frontier_files.write_quality(profiled.bundle, [], name="b", task="88" * 32, digest="cd" * 32)
    with pytest.raises(ProfileError, match="was measured of bundle cdcdcdcdcdcd"):
        made(profiled)


def test_what_is_damaged_is_moved_aside_and_said(profiled: Model) -> None:
    file = latency_file(profiled.bundle, latency_key(profiled.bundle, profiled.backend))
    file.write_text('{"schema": 1', encoding="utf-8")
    with pytest.raises(ProfileError, match=r"is damaged .*damaged-1"):
        made(profiled)


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left(
    profiled: Model, tmp_path: Path
) -> None:
    report = made(profiled)
    drawn = plots(report)
    blocked = tmp_path / "file"
    blocked.write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"report\.html was not written .*name another file"):
        write_page(report, drawn, blocked / "report.html")
    with pytest.raises(InputError, match=r"latency\.svg was not written .*name another folder"):
        write_images(drawn, blocked)
    assert [each.name for each in tmp_path.iterdir() if each.name != "state"] == ["file"]


FILL = """
import resource, sys
from pathlib import Path
from tightrope.errors import InputError
from tightrope.profiles.frontier.report import page

page.page = lambda report, plots: "x" * 3_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    page.write_page(None, [], Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("before", encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-c", FILL, str(file)], capture_output=True, text=True, check=True
    )
    assert "was not written" in told.stdout and "make room" in told.stdout
    assert file.read_text(encoding="utf-8") == "before"
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
