"""The service under a real systemd: installed, started, watched, reloaded, stopped and removed.

One machine for all of it, in this order: each test leaves the service answering.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("starlette") is None, reason="needs the extra [serve]"
    ),
]
TESTS = Path(__file__).resolve().parents[1]
UNIT, STATE = "tightrope.service", "/var/lib/tightrope"
WATCHDOG_S, RESTART_S = 5, 5
HANGING = """
import os, time
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend

real = OnnxRuntimeBackend.decode

def decode(self, slots, call):
    while os.path.exists("/run/hang"):
        time.sleep(0.1)
    return real(self, slots, call)

OnnxRuntimeBackend.decode = decode
from tightrope.cli import main
main()
"""


class Board:
    """The machine and a client of the service on it."""

    def __init__(self, machine: Any, port: int) -> None:
        self.machine, self.port = machine, port
        self.load_s = 0.0
        """From its start to its first answer, as seen at the first."""

    def ask(self, path: str, body: dict[str, Any] | None = None, timeout: float = 60) -> Any:
        """Status and JSON of an answer."""
        with contextlib.closing(self.connect(timeout)) as connection:
            self.send(connection, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def send(
        self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None
    ) -> None:
        head = {"authorization": "Bearer secret", "content-type": "application/json"}
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, head)

    def answers(self) -> bool:
        """Whether it does, at this moment."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            return bool(self.ask("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200)
        return False

    def family(self) -> str:
        return str(self.ask("/v1/models/model")[1]["tightrope"]["family"])

    @property
    def process(self) -> int:
        return int(self.machine.show(UNIT, "MainPID"))


@pytest.fixture(scope="module")
def booted(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    module = module_of(TESTS / "booted.py")
    if reason := module.lacking():
        pytest.skip(reason)
    return module


@pytest.fixture(scope="module")
def board(
    booted: ModuleType,
    bundle: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Board]:
    """A board with two bundles, of which a link names one, and keys that root alone may read."""
    paths = {name: bundle(name) for name in ("llama", "qwen2")}
    machine = booted.Booted(tmp_path_factory.mktemp("root"))
    with contextlib.closing(machine):
        for name, path in paths.items():
            machine.copy(path, f"{STATE}/bundles/{name}-1.bundle")
        (machine.root / STATE[1:] / "bundles/model.bundle").symlink_to("llama-1.bundle")
        keys = machine.root / "etc/keys"
        keys.write_text(hashlib.sha256(b"secret").hexdigest() + "  tests\n")
        keys.chmod(0o600)
        (machine.root / "opt/hanging.py").write_text(HANGING)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield Board(machine, port)


def install(board: Board, *more: str) -> subprocess.CompletedProcess[str]:
    return board.machine.tightrope(  # type: ignore[no-any-return]
        "service", "install", "--bundle", f"{STATE}/bundles/model.bundle", f"--port={board.port}",
        "--api-keys=/etc/keys", "--threads=1", f"--watchdog={WATCHDOG_S}", *more, check=False,
    )  # fmt: skip


def test_nobody_else_may_install_it(board: Board) -> None:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command += ["/opt/tightrope/bin/python", "-m", "tightrope", "service", "install"]
    command += ["--bundle", f"{STATE}/bundles/llama-1.bundle"]
    refused = board.machine.run(*command, check=False)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "run it with sudo" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--bundle", "/nowhere/x.bundle"], 1, "does not exist"),
        (["--bundle", f"{STATE}/bundles/model.bundle", "--name", "systemd-journald"], 2, "was not"),
        (["--bundle", f"{STATE}/bundles/model.bundle", "--name", "nobody"], 2, "a user of that"),
        (["--bundle", f"{STATE}/bundles/model.bundle", "--name", "../x"], 2, "small letters"),
        (["--bundle", f"{STATE}/bundles/model.bundle", "--api-keys", "/none"], 2, "no such file"),
        (["--bundle", "/root/x.bundle"], 2, "does not see"),
        ([], 2, "bundle is missing"),
    ],
)
def test_what_cannot_be_installed_is_told_and_changes_nothing(
    board: Board, arguments: list[str], status: int, words: str
) -> None:
    hidden = board.machine.root / "root/x.bundle"
    if not hidden.exists():
        board.machine.copy(
            board.machine.root / STATE[1:] / "bundles/llama-1.bundle", "/root/x.bundle"
        )
    refused = board.machine.tightrope("service", "install", *arguments, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (status, 1), refused.stderr
    assert words in refused.stderr
    assert not list((board.machine.root / "etc/sysusers.d").iterdir())


def test_a_dry_run_prints_the_unit_and_changes_nothing(board: Board) -> None:
    shown = install(board, "--dry-run")
    assert shown.returncode == 0 and "Type=notify" in shown.stdout
    assert not (board.machine.root / "etc/systemd/system" / UNIT).exists()
    assert board.machine.tightrope("service", "status", check=False).returncode == 1


def test_it_is_ready_when_its_installation_ends(board: Board) -> None:
    begun = time.monotonic()
    done = install(board)
    assert done.returncode == 0, done.stderr
    board.load_s = time.monotonic() - begun
    assert "which is ready" in done.stdout
    assert board.ask("/readyz")[0] == 200 and board.answers()
    assert board.ask("/v1/models")[1]["data"][0]["id"] == "model"
    status = board.machine.tightrope("service", "status", "--json")
    told = json.loads(status.stdout)
    assert told["active"] and told["unit"]["StatusText"].startswith("answering on")


def test_a_second_installation_changes_nothing(board: Board) -> None:
    before = board.process
    again = install(board)
    assert (again.returncode, again.stdout) == (0, "tightrope is installed as it was asked for\n")
    assert board.process == before


def test_it_runs_as_a_user_of_its_own_who_may_open_a_gpu(board: Board) -> None:
    status = (board.machine.root / f"proc/{board.process}/status").read_text()
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in rows["Uid"].split() and rows["CapEff"] == "0" * 16
    assert {"44", "105"} <= set(rows["Groups"].split())
    assert rows["NoNewPrivs"] == "1" and rows["Seccomp"] == "2"


def test_the_journal_keeps_an_answers_figures_as_fields(board: Board) -> None:
    def lines() -> list[dict[str, str]]:
        told = board.machine.run("journalctl", "--unit", UNIT, "--output=json").stdout
        found = [json.loads(line) for line in told.splitlines()]
        return [line for line in found if "EXTRA_TOTAL_MS" in line]

    assert board.answers()
    deadline = time.monotonic() + 20
    while not (found := lines()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found[-1]["EXTRA_MODEL"] == "model" and float(found[-1]["EXTRA_TOTAL_MS"]) > 0
    assert found[-1]["EXTRA_COMPLETION_TOKENS"] == "2"


def test_another_bundle_is_taken_while_requests_go_on(board: Board, booted: ModuleType) -> None:
    assert board.family() == "llama"
    outcomes: list[Any] = []
    asking = threading.Event()
    asking.set()

    def ask() -> None:
        while asking.is_set():
            outcomes.append(board.ask("/v1/completions", {"prompt": "a", "max_tokens": 20})[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    before = board.process
    link(board, "qwen2-1.bundle")
    board.machine.run("systemctl", "reload", UNIT)
    booted.until(lambda: board.family() == "qwen2", "the other bundle answers")
    booted.until(lambda: "reloaded model" in board.machine.show(UNIT, "StatusText"), "it says so")
    asking.clear()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {200} and len(outcomes) > 3
    assert board.process == before and board.machine.show(UNIT, "ActiveState") == "active"


def test_a_bundle_that_cannot_be_taken_leaves_the_old_one(board: Board, booted: ModuleType) -> None:
    before = board.process
    link(board, "no-such.bundle")
    board.machine.run("systemctl", "reload", UNIT)
    booted.until(lambda: "does not exist" in board.machine.show(UNIT, "StatusText"), "it says why")
    assert board.answers() and board.family() == "qwen2" and board.process == before
    link(board, "qwen2-1.bundle")


def test_it_is_back_after_it_was_killed(board: Board, booted: ModuleType) -> None:
    board.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    took = booted.until(lambda: board.machine.show(UNIT, "NRestarts") == "1", "it is started anew")
    took += booted.until(board.answers, "it answers")
    assert took < 10 + board.load_s


def test_an_engine_that_hangs_is_started_again(board: Board, booted: ModuleType) -> None:
    override(board, hanging=True)
    assert board.answers()
    before = board.process
    (board.machine.root / "run/hang").touch()
    with pytest.raises((OSError, http.client.HTTPException)):  # until the process is ended
        board.ask("/v1/completions", {"prompt": "a", "max_tokens": 9}, 4 * WATCHDOG_S + 60)
    # Everything but the engine was alive: it is the engine that was watched.
    (board.machine.root / "run/hang").unlink()
    took = booted.until(lambda: board.process not in (0, before) and board.answers(), "it answers")
    assert took < 10 + board.load_s
    journal = board.machine.run("journalctl", "--unit", UNIT, "--output=cat").stdout
    assert "Watchdog timeout" in journal
    override(board, hanging=False)


def test_an_idle_service_is_left_alone(board: Board) -> None:
    before = board.process
    time.sleep(WATCHDOG_S + 2)
    assert board.process == before and board.answers()


def test_a_bundle_that_vanished_is_waited_for(board: Board, booted: ModuleType) -> None:
    link(board, "no-such.bundle")
    assert board.answers()  # it has what it needs in memory
    board.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    booted.until(lambda: board.machine.show(UNIT, "ExecMainStatus") == "1", "it cannot start")
    journal = board.machine.run("journalctl", "--unit", UNIT, "--output=cat").stdout
    assert "does not exist" in journal
    link(board, "llama-1.bundle")
    assert booted.until(board.answers, "it answers") < 10 + board.load_s
    assert board.family() == "llama"


def test_a_full_disk_keeps_nobody_from_answers(board: Board, booted: ModuleType) -> None:
    machine = board.machine
    filled = machine.run("sh", "-c", f"df --output=avail {STATE} | tail -1").stdout
    machine.run("fallocate", "-l", f"{int(filled)}K", f"{STATE}/fill")
    machine.run("sh", "-c", f"cat /dev/zero > {STATE}/rest", check=False)
    machine.run("systemctl", "restart", UNIT)
    assert board.answers()
    machine.run("rm", f"{STATE}/fill", f"{STATE}/rest")


def test_a_wrong_setting_is_not_tried_again(board: Board, booted: ModuleType) -> None:
    override(board, hanging=False, port="70000", start=False)
    failed = board.machine.run("systemctl", "restart", UNIT, check=False)
    assert failed.returncode
    assert board.machine.show(UNIT, "ActiveState") == "failed"
    assert board.machine.show(UNIT, "ExecMainStatus") == "2"
    assert board.machine.show(UNIT, "NRestarts") == "0"
    assert board.machine.tightrope("service", "status", check=False).returncode == 1
    override(board, hanging=False)


def test_answers_are_finished_or_closed_when_it_stops(board: Board, booted: ModuleType) -> None:
    with contextlib.closing(board.connect()) as connection:
        body = {"prompt": "a", "max_tokens": 1900, "stream": True}
        board.send(connection, "/v1/completions", body)
        response = connection.getresponse()
        assert response.status == 200
        stopping = threading.Thread(target=board.machine.run, args=("systemctl", "stop", UNIT))
        begun = time.monotonic()
        stopping.start()
        events = [line for line in response.read().decode().split("\n\n") if line]
        stopping.join()
    assert time.monotonic() - begun < 15
    last = events[-1].removeprefix("data: ")
    assert last == "[DONE]" or json.loads(last)["error"]["code"] == "stopping"
    assert board.machine.show(UNIT, "Result") == "success"
    board.machine.run("systemctl", "start", UNIT)
    assert board.answers()


def test_what_is_left_is_state_and_bundles(board: Board) -> None:
    root = board.machine.root
    shutil.rmtree(root / f"etc/systemd/system/{UNIT}.d")  # the tests' own
    removed = board.machine.tightrope("service", "uninstall")
    assert f"left: {STATE}" in removed.stdout
    again = board.machine.tightrope("service", "uninstall")
    assert again.stdout.startswith("tightrope is not installed\n")
    found = board.machine.run(
        "find", "/etc", "/var", "-xdev", "-iname", "*tightrope*", "-not", "-path", f"{STATE}/*"
    ).stdout.split()
    assert found == [STATE]
    assert "tightrope" not in (root / "etc/passwd").read_text()
    assert (root / STATE[1:] / "bundles/model.bundle/bundle.json").is_file()


def link(board: Board, target: str) -> None:
    """Have the served name lead to another bundle, in one step."""
    folder = board.machine.root / STATE[1:] / "bundles"
    (folder / "next").symlink_to(target)
    (folder / "next").rename(folder / "model.bundle")


def override(board: Board, *, hanging: bool, port: str = "", start: bool = True) -> None:
    """Have the unit's own command run with one thing changed, or as it is."""
    folder = board.machine.root / f"etc/systemd/system/{UNIT}.d"
    folder.mkdir(exist_ok=True)
    text = (board.machine.root / "etc/systemd/system" / UNIT).read_text()
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    if hanging:
        command = command.replace("-m tightrope", "/opt/hanging.py")
    if port:
        command = command.replace(f"--port={board.port}", f"--port={port}")
    (folder / "tests.conf").write_text(f"[Service]\nExecStart=\n{command}\n")
    board.machine.run("systemctl", "daemon-reload")
    if start:
        board.machine.run("systemctl", "restart", UNIT)
