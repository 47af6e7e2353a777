"""Quality split over workers that are processes, latency on one of them, and what may be wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tightrope.cli import app
from tightrope.errors import DeviceUnavailable, InputError, ProfileError
from tightrope.latency_file import read_latency
from tightrope.profiles.latency.profile import installed_packages
from tightrope.profiles.quality.config import QualityConfig
from tightrope.profiles.quality.profile import profile_quality
from tightrope.profiles.quality.report import Profiled
from tightrope.profiles.task.task import Task, read_task, write_task
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

pytest.importorskip("distributed", reason="needs the extra [boards]")
if shutil.which("openssl") is None:
    pytest.skip("certificates are made by openssl", allow_module_level=True)

import dask.config

from tightrope.profiles.boards import boards as boards_module
from tightrope.profiles.boards import facts
from tightrope.profiles.boards.boards import connected

Find = Callable[[str], Path]
Load = Callable[[str], Model]
CONFIG = QualityConfig(points=4, max_tokens=4)
QUESTIONS = 40


@pytest.fixture(scope="module")
def clusters(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(Path(__file__).parent / "clusters.py")


@pytest.fixture(scope="module")
def certificate(clusters: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return clusters.Certificate(tmp_path_factory.mktemp("certificate")).make()


@pytest.fixture(scope="module")
def two(
    clusters: ModuleType,
    certificate: Any,
    bundle: Find,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """A scheduler that speaks TLS, and two workers with the small seeing bundle."""
    folder = tmp_path_factory.mktemp("two")
    with clusters.cluster(folder, certificate, folder / "state") as found:
        found.start(bundle("llava"), 2)
        yield found


@pytest.fixture
def plain(clusters: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """A scheduler without encryption and without workers."""
    with clusters.cluster(tmp_path, None, tmp_path / "worker.state") as found:
        yield found


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def settings(certificate: Any) -> Iterator[None]:
    with dask.config.set(certificate.settings()):
        yield


@pytest.fixture
def model(loaded: Load) -> Model:
    return loaded("llava")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Questions about three pictures in turn, every fifth about none."""
    folder = tmp_path / "colours"
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for number in range(QUESTIONS):
        colour = ("red", "green", "blue")[number % 3]
        Image.new("RGB", (20, 16), colour).save(folder / f"{colour}.png")
        seen = {"images": [f"{colour}.png"]} if number % 5 else {}
        lines.append({"id": f"q{number}", "question": f"what is {number} ?", **seen})
    write_task(folder, lines)
    return read_task(folder)


def table(report: Profiled) -> dict[Any, Any]:
    return {
        point.point: (point.beaten_by, {outcome.question: outcome for outcome in point.outcomes})
        for point in report.quality.points
    }


def test_a_race_split_over_two_workers_gives_the_table_of_one_process(
    two: Any, model: Model, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = profile_quality(model, task, CONFIG)
    places: set[str] = set()
    with connected(two.url, model) as found:
        done = found._done

        def noted(running: list[Any]) -> list[Any]:
            finished = done(running)
            for holders in found._client.who_has(finished).values():
                places.update(holders)
            return finished

        monkeypatch.setattr(found, "_done", noted)
        other = QualityConfig(points=4, max_tokens=4, name="split")
        split = profile_quality(model, task, other, ask=found.ask)
        assert places == set(found.workers) and len(places) == 2
    assert table(split) == table(alone)
    assert (split.asked, split.complete) == (alone.asked, True)
    assert found.notes == ()


def test_a_worker_that_dies_loses_only_what_it_runs(
    plain: Any, model: Model, task: Task, bundle: Find
) -> None:
    alone = profile_quality(model, task, CONFIG)
    plain.start(bundle("llava"), 2)
    asked = 0
    with connected(plain.url, model, unencrypted=True) as found:

        def ask(*given: Any) -> Any:
            nonlocal asked
            for entry in found.ask(*given):
                asked += 1
                if asked == 20:
                    plain.workers[0].send_signal(signal.SIGKILL)
                yield entry

        other = QualityConfig(points=4, max_tokens=4, name="split")
        split = profile_quality(model, task, other, ask=ask)
    assert plain.workers[0].wait(20) == -signal.SIGKILL
    assert table(split) == table(alone) and split.asked == alone.asked == asked


def test_without_a_worker_left_what_was_measured_stays(
    plain: Any, model: Model, task: Task, bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards_module, "LOOK_SECONDS", 0.2)
    plain.start(bundle("llava"))
    with connected(plain.url, model, unencrypted=True) as found:
        killer = threading.Timer(0.0, plain.workers[0].kill)

        def ask(*given: Any) -> Any:
            for number, entry in enumerate(found.ask(*given)):
                if number == 5:
                    killer.start()
                yield entry

        with pytest.raises(DeviceUnavailable, match=r"the last worker of .* is gone; what was"):
            profile_quality(model, task, CONFIG, ask=ask)
    rest = profile_quality(model, task, CONFIG)
    alone = profile_quality(model, task, QualityConfig(points=4, max_tokens=4, name="alone"))
    assert rest.complete and table(rest) == table(alone)
    assert 5 <= alone.asked - rest.asked < alone.asked


def test_time_that_is_over_ends_a_split_race_and_it_goes_on(
    two: Any, model: Model, task: Task
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with connected(two.url, model) as found:
        limited = QualityConfig(points=4, max_tokens=4, minutes=1.0)
        part = profile_quality(model, task, limited, ask=found.ask, clock=clock)
        assert not part.complete and 0 < part.asked < 70
        rest = profile_quality(model, task, CONFIG, ask=found.ask)
    assert rest.complete
    alone = profile_quality(model, task, QualityConfig(points=4, max_tokens=4, name="alone"))
    assert table(rest) == table(alone) and rest.asked + part.asked == alone.asked


def test_the_command_measures_latency_on_the_board_and_quality_on_all(
    two: Any, model: Model, task: Task, state: Path
) -> None:
    folder, limits = str(model.bundle.path), ["--points", "3", "--max-tokens", "3", "--limit", "6"]
    common = ["--scheduler", two.url, "--backend", "onnxruntime", "--threads", "1"]
    command = ["profile", folder, "--task", str(task.folder), "--minutes", "0.5", *limits, *common]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    told = json.loads(result.stdout)
    (latency,) = told["latencies"]
    key = latency_key(model.bundle, model.backend)
    assert latency["key"]["board"] == key.board and latency["key"]["threads"] == 1
    assert told["quality"]["complete"] and told["quality"]["asked"] > 0
    # The file lies on the board, and a copy under the board's name here.
    assert read_latency(model.bundle, key).date == latency["date"]
    theirs = Path(two.environment["TIGHTROPE_STATE"]) / "latency"
    assert [file.name for file in theirs.iterdir()] == [
        file.name for file in (state / "latency").iterdir()
    ]
    said = (
        CliRunner()
        .invoke(
            app, ["profile", folder, "--task", str(task.folder), "--quality-only", *limits, *common]
        )
        .stdout
    )
    assert "still racing" in said and "0 answers in" in said


def test_every_wrong_worker_is_named_before_anything_is_asked(
    two: Any, model: Model, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(
            DeviceUnavailable, match=r"is on Orin Nano 8GB in 25W; there are: .* in none"
        ),
        connected(two.url, model, board="Orin Nano 8GB", power_mode="25W"),
    ):
        pass
    with (
        pytest.raises(ProfileError, match=r"worker tls://.* has bundle .*: copy this one there"),
        connected(two.url, loaded("llama")),
    ):
        pass
    monkeypatch.setattr(facts, "code_digest", lambda: "0123456789ab")
    with (
        pytest.raises(ProfileError, match=r"has tightrope's code \w+, here it is 0123456789ab"),
        connected(two.url, model),
    ):
        pass


def test_programs_that_may_differ_are_noted(
    two: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = installed_packages()
    monkeypatch.setattr(facts, "installed_packages", lambda: real | {"pillow": "1.0"})
    with connected(two.url, model) as found:
        first, second = found.notes
    assert first != second and "has pillow" in first and first.endswith("here it is 1.0")


def test_a_scheduler_without_workers_or_that_is_not_there_is_told(
    plain: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(DeviceUnavailable, match=r"no worker of Tightrope; start .*profile-worker"),
        connected(plain.url, model, unencrypted=True),
    ):
        pass
    monkeypatch.setattr(boards_module, "CONNECT_SECONDS", 1)
    with (
        pytest.raises(
            DeviceUnavailable, match=r"the scheduler at tls://127.0.0.1:9 cannot be used"
        ),
        connected("tls://127.0.0.1:9", model),
    ):
        pass


def test_a_worker_without_a_scheduler_says_so(
    clusters: ModuleType, bundle: Find, certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightrope.profiles.boards import worker

    monkeypatch.setattr(worker, "CONNECT_SECONDS", 1)
    command = ["profile-worker", str(bundle("llava")), "--scheduler", "tls://127.0.0.1:9"]
    result = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert isinstance(result.exception, DeviceUnavailable), result.exception
    assert "tls://127.0.0.1:9 cannot be used" in str(result.exception)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tcp://127.0.0.1:1", "is not encrypted: whoever reaches it .*--unencrypted"),
        ("127.0.0.1:1", "accepted: tls://HOST:PORT"),
        ("http://127.0.0.1:1", "accepted: tls://HOST:PORT"),
    ],
)
def test_a_scheduler_that_anybody_could_use_is_refused(url: str, words: str, model: Model) -> None:
    with pytest.raises(InputError, match=words), connected(url, model):
        pass


def test_certificates_that_are_not_named_are_asked_for(model: Model) -> None:
    nothing: Any = {
        f"distributed.comm.tls.{name}": None for name in ("ca-file", "client.cert", "client.key")
    }
    with (
        dask.config.set(nothing),
        pytest.raises(InputError, match=r"needs certificates: .*TLS__CA_FILE, .*CLIENT__KEY"),
        connected("tls://127.0.0.1:1", model),
    ):
        pass


def test_workers_are_chosen_beside_a_scheduler_alone(bundle: Find) -> None:
    for more in (("--board", "x"), ("--power-mode", "x"), ("--unencrypted",)):
        result = CliRunner().invoke(app, ["profile", str(bundle("llava")), *more])
        assert isinstance(result.exception, InputError)
        assert "--scheduler beside them" in str(result.exception)


def test_two_versions_of_python_measure_together(
    plain: Any, model: Model, task: Task, bundle: Find
) -> None:
    other = os.environ.get("TIGHTROPE_OTHER_PYTHON")
    if other is None:
        pytest.skip("TIGHTROPE_OTHER_PYTHON names no second interpreter; `make test` does")
    version = "import platform; print(platform.python_version())"
    said = subprocess.run([other, "-c", version], capture_output=True, text=True, check=True).stdout
    plain.start(bundle("llava"))
    plain.start(bundle("llava"), python=other)
    with connected(plain.url, model, unencrypted=True) as found:
        split = profile_quality(model, task, CONFIG, ask=found.ask)
        assert len(found.workers) == 2
    assert any(f"has python {said.strip()}, here it is" in note for note in found.notes)
    alone = profile_quality(model, task, QualityConfig(points=4, max_tokens=4, name="alone"))
    assert split.complete and split.asked == alone.asked
    assert {at: set(rows) for at, (_, rows) in table(split).items()} == {
        at: set(rows) for at, (_, rows) in table(alone).items()
    }
