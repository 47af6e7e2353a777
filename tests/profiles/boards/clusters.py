"""Schedulers and workers as processes of their own, encrypted by a certificate of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "DASK_DISTRIBUTED__COMM__TLS__"
LONGEST_START = 120
ROOT = Path(__file__).parents[3]


@dataclass
class Certificate:
    """One for all roles, which is its own authority."""

    folder: Path

    def make(self) -> Certificate:
        """As the page on boards tells."""
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=test", "-keyout", "key.pem", "-out", "cert.pem"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return self

    @property
    def cert(self) -> str:
        return str(self.folder / "cert.pem")

    @property
    def key(self) -> str:
        return str(self.folder / "key.pem")

    def variables(self) -> dict[str, str]:
        """The environment of every process."""
        files = {"CA_FILE": self.cert}
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            files |= {f"{role}__CERT": self.cert, f"{role}__KEY": self.key}
        return {PREFIX + name: file for name, file in files.items()}

    def settings(self) -> dict[str, str]:
        """The same for `dask.config.set`: Dask read the environment when it was imported."""
        files = {"ca-file": self.cert}
        for role in ("scheduler", "worker", "client"):
            files |= {f"{role}.cert": self.cert, f"{role}.key": self.key}
        return {f"distributed.comm.tls.{name}": file for name, file in files.items()}


@dataclass
class Cluster:
    """A scheduler and its workers."""

    url: str
    environment: Mapping[str, str]
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self,
        bundle: Path,
        count: int = 1,
        python: str = sys.executable,
        options: Sequence[str] = (),
    ) -> None:
        """Workers with one thread each; they are ready."""
        command = [
            python,
            "-m",
            "tightrope",
            "profile-worker",
            str(bundle),
            "--scheduler",
            self.url,
        ]
        command += ["--backend", "onnxruntime", "--threads", "1", *options]
        if self.url.startswith("tcp"):
            command.append("--unencrypted")
        begun = [_process(command, self.environment) for _ in range(count)]
        self.workers += begun
        for worker in begun:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            assert line.startswith("ready: "), worker.communicate(timeout=20)

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.communicate()


@contextmanager
def cluster(folder: Path, certificate: Certificate | None, state: Path) -> Iterator[Cluster]:
    """A scheduler without workers; with a certificate it speaks TLS alone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TIGHTROPE_STATE": str(state)}
    if site := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] += os.pathsep + site
    protocol = "tcp"
    if certificate is not None:
        environment |= certificate.variables()
        protocol = "tls"
    told = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    command += ["--protocol", protocol, "--host", "127.0.0.1", "--port", "0"]
    command += ["--scheduler-file", str(told)]
    scheduler = _process(command, environment)
    try:
        ends = time.monotonic() + LONGEST_START
        while not told.exists() or not told.read_text(encoding="utf-8").endswith("}"):
            assert scheduler.poll() is None and time.monotonic() < ends
            time.sleep(0.05)
        url = json.loads(told.read_text(encoding="utf-8"))["address"]
        found = Cluster(url, environment)
        try:
            yield found
        finally:
            found.end()
    finally:
        scheduler.kill()
        scheduler.communicate()


def _process(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
