"""Lines of tegrastats as releases write them, whole and cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.jetson.tegrastats import Line, parse_line, parse_log, summary_of

NANO = (
    "04-19-2026 01:31:10 RAM 519/7607MB (lfb 61x4MB) CPU "
    "[0%@1728,3%@1344,0%@1728,0%@1728,off,off] EMC_FREQ 0%@3199 GR3D_FREQ 7%@[1018] NVDEC off "
    "NVJPG off NVJPG1 off VIC off OFA off APE 200 cpu@48.906C soc2@47.656C soc0@48.093C "
    "gpu@49.593C tj@49.593C soc1@47.312C VDD_IN 5971mW/5971mW VDD_CPU_GPU_CV 1669mW/1669mW "
    "VDD_SOC 2308mW/2308mW"
)
OLDER = (
    "RAM 4011/8138MB (lfb 8x4MB) SWAP 12/4068MB (cached 0MB) CPU [12%@1190,8%@1190] EMC_FREQ 0% "
    "GR3D_FREQ 35% APE 174 cpu@52C gpu@51.5C VDD_IN 5517mW/5500mW VDD_SOC 1400mW/1399mW"
)
AGX = (
    "11-02-2026 10:00:00 RAM 9000/62800MB (lfb 5x256kB) SWAP 0/31400MB (cached 0MB) CPU [1%@2201] "
    "EMC_FREQ 2%@3199 GR3D_FREQ 99%@[1300,1300] cv0@-256C tboard@40C tj@61.2C "
    "VDD_GPU_SOC 20000mW/9000mW VDD_CPU_CV 3000mW/2000mW VIN_SYS_5V0 4000mW/4000mW"
)
THOR = (
    "10-30-2026 09:12:01 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@1386] EMC_FREQ 0%@2750 "
    "GR3D_FREQ @[314,314,314] tj@38.875C soc012@37.5C gpu@38.1C VDD_GPU 1962mW/1962mW "
    "VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)


def parsed(text: str) -> Line:
    line = parse_line(text)
    assert line is not None
    return line


def test_a_line_of_an_orin_nano() -> None:
    line = parsed(NANO)
    assert line.time is not None and line.time.isoformat() == "2026-04-19T01:31:10"
    assert (line.ram_mb, line.ram_total_mb, line.largest_free_mb) == (519, 7607, 4)
    assert line.swap_mb is None
    assert line.cpu_percent == (0, 3, 0, 0, None, None) and line.cpu_mhz == 1728
    assert (line.emc_percent, line.emc_mhz) == (0, 3199)
    assert (line.gpu_percent, line.gpu_mhz) == (7, 1018)
    assert line.temperatures["tj"] == line.hottest_c == 49.593
    assert set(line.temperatures) == {"cpu", "soc0", "soc1", "soc2", "gpu", "tj"}
    assert line.watts == 5.971


def test_a_line_of_an_older_release() -> None:
    line = parsed(OLDER)
    assert line.time is None
    assert (line.swap_mb, line.swap_total_mb) == (12, 4068)
    assert (line.gpu_percent, line.gpu_mhz, line.emc_percent, line.emc_mhz) == (35, None, 0, None)
    assert line.temperatures == {"cpu": 52.0, "gpu": 51.5}
    assert line.watts == 5.517


def test_a_line_of_an_agx_orin() -> None:
    line = parsed(AGX)
    assert line.largest_free_mb == 0.25
    assert (line.gpu_percent, line.gpu_mhz) == (99, 1300)
    assert "cv0" not in line.temperatures  # it is off
    assert line.watts == 27.0


def test_a_line_of_a_thor() -> None:
    line = parsed(THOR)
    assert (line.gpu_percent, line.gpu_mhz, line.emc_mhz) == (None, 314, 2750)
    assert line.watts == 19.78 and line.rails["VDD_GPU"] == 1.962
    without = parsed(THOR.partition(" VIN 1")[0])
    assert without.watts == pytest.approx(1.962 + 5.887 + 5.635)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([NANO, OLDER, AGX, THOR]), st.data())
def test_a_line_that_was_cut_says_nothing_that_it_does_not_say_whole(
    text: str, data: st.DataObject
) -> None:
    whole = parsed(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    for line in parse_log(text[start:end]):
        for name in Line.__slots__:
            value, full = getattr(line, name), getattr(whole, name)
            if isinstance(value, dict):
                assert value.items() <= full.items()
            elif name == "cpu_percent":
                assert value in ((), full)
            else:
                assert value is None or value == full


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200))
def test_any_text_is_a_line_or_none(text: str) -> None:
    parse_log(text)


def test_lines_that_ran_into_each_other_count_from_the_last_that_began() -> None:
    line = parsed(NANO[:100] + AGX)
    assert line.ram_mb == 9000 and "VDD_IN" not in line.rails


def test_a_log_is_summed_up() -> None:
    later = NANO.replace("01:31:10", "01:31:15").replace("VDD_IN 5971mW", "VDD_IN 9971mW")
    log = f"{NANO}\n{later}\n\nstopped\n{NANO[:40]}"
    lines = parse_log(log)
    assert len(lines) == 3 and lines[2].rails == {}
    found = summary_of(lines[:2])
    assert (found.lines, found.seconds) == (2, 5.0)
    assert found.mean_watts == pytest.approx(7.971) and found.most_watts == 9.971
    assert found.energy_j == pytest.approx(5 * 7.971)


def test_a_clock_that_was_set_back_tells_no_time() -> None:
    earlier = NANO.replace("01:31:10", "01:30:10")
    found = summary_of(parse_log(f"{NANO}\n{earlier}\n"))
    assert (found.seconds, found.energy_j) == (None, None)
    assert found.mean_watts == pytest.approx(5.971)
    assert parsed(NANO.replace("04-19", "13-45")).time is None
