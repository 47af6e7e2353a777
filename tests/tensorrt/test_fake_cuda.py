"""The fake CUDA driver under NVIDIA's own bindings: it keeps order, and finds misuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")

EXPECTED: dict[str, Any] = {
    "before_cuInit": "3: cuInit was not called",
    "results_come_when_they_are_waited_for": [0.0, 3.0],
    "a_pinned_buffer_that_is_reused_too_early_is_read_late": 7.0,
    "a_captured_launch_is_replayed_with_the_arguments_it_had": 9.0,
    "memory_that_nobody_wrote": "700: copy from: byte 0 of 64 at _ was never written",
    "a_copy_past_the_end": "700: copy from: 65 bytes at _ end behind the allocation",
    "a_kernel_on_memory_that_was_freed": "700: kernel: _ was freed",
    "a_stream_that_failed": "700: copy from: 65 bytes at _ end behind the allocation",
    "memory_that_is_freed_twice": "1: _ is no allocation that can be freed",
    "an_allocation_while_capturing": "900: allocating while a stream is captured",
    "waiting_while_capturing": "900: waiting for a stream that is captured",
    "more_memory_than_there_is": "2: _ bytes are held, of 1048576",
    "a_block_of_too_many_threads": "1: scale: 1x1x1 blocks of 2048x1x1 threads",
    "a_kernel_of_a_module_that_was_unloaded": "400: scale: its module was unloaded",
    "an_image_that_is_none": "200: the image is none of ours",
    "a_stream_that_was_destroyed": "400: the stream was destroyed",
    "what_is_still_open_is_counted": 2,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of every case."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("fake_cuda") / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    source = str(HERE / "fake_cuda.c")
    subprocess.run([compiler, *options, "-o", str(library), source, "-ldl"], check=True)
    command = [sys.executable, str(HERE / "fake_cuda_cases.py"), str(library)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_a_case_comes_to_what_a_strict_driver_says(case: str, told: dict[str, Any]) -> None:
    found, expected = told[case], EXPECTED[case]
    if isinstance(expected, str):
        found = re.sub(r"0x[0-9a-f]+", "_", str(found))
        found = re.sub(r"\d+ bytes are held", "_ bytes are held", found)
    assert found == expected


def test_every_case_is_expected(told: dict[str, Any]) -> None:
    assert set(told) == set(EXPECTED)
