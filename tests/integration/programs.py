"""The real programs behind the cost views, as processes: started on free loopback ports, ready when returned, stopped.

`collector-config/build.py` builds them, and nothing here does: tests are skipped, with the command, where they are not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "collector-config"
DEADLINE = 60.0
"""Seconds that a slow machine may take for anything that is waited for."""

PROMETHEUS_FEATURES = "created-timestamp-zero-ingestion,promql-extended-range-selectors,exemplar-storage"


def _build_script() -> Any:
    spec = importlib.util.spec_from_file_location("shekel_stack_build", CONFIG / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = _build_script()


def binary(name: str) -> Path:
    """Where a program is: "otelcol", "jaeger", "prometheus" or "promtool". Skips the test where it is not built."""
    path: Path = build.place(name)
    if not path.exists():
        pytest.skip(f"{name} is not built: python collector-config/build.py (needs Go)")
    return path


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def wait_for(what: str, ready: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Wait until `ready()` is true, and return it. Refused and broken connections count as not yet.

    Args:
        what: for the message when it does not happen.
        deadline: seconds.
    """
    until = time.monotonic() + deadline
    last: Any = None
    while time.monotonic() < until:
        try:
            last = ready()
        except (OSError, urllib.error.URLError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {deadline:.0f} s; last seen: {last!r}")


def settled(ask: Callable[[], float]) -> float:
    """What an answer is when it has not changed for five seconds: five scrapes of these tests."""
    last, since = ask(), time.monotonic()
    while time.monotonic() - since < 5:
        time.sleep(0.2)
        now = ask()
        if now != last:
            last, since = now, time.monotonic()
    return last


def get(url: str, **query: str) -> str:
    """The body behind a URL."""
    if query:
        url += "?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return str(answer.read().decode())


class Program(ABC):
    """A child process with a log.

    Args:
        name: for messages and the log's name.
        command: what to run.
        folder: where the log and its data go.
        environment: what it sees besides PATH and HOME; nothing else of ours reaches it.
    """

    def __init__(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str] = {}) -> None:
        self.name = name
        self.command = command
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ},
            **environment,
        }
        self.log_path = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything it has said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @abstractmethod
    def alive(self) -> bool:
        """Whether it answers and is ready; each program says how it tells."""

    def start(self) -> Self:
        """Start it, and return when it is ready."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, cwd=self.folder
            )
        process = self.process

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"{self.name} ended with {process.returncode}:\n{self.log[-3000:]}")
            return self.alive()

        wait_for(f"start of {self.name}", ready)
        return self

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it; `signal.SIGKILL` is a crash. Stopping twice is fine."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)


class Collector(Program):
    """The collector with collector.yaml as it is: only environment variables are set.

    Args:
        folder: for its log.
        jaeger: "host:port" of Jaeger's OTLP receiver; nobody listens there by default.
        config: another configuration.
        **environment: more variables of collector.yaml.

    Attributes:
        otlp_http, otlp_grpc: where apps send to, as URLs.
        prometheus_port, traced_port: what Prometheus scrapes: the apps' own metrics, and those made from spans.
        telemetry_port: the collector's own metrics.
    """

    def __init__(
        self, folder: Path, jaeger: str | None = None, config: Path = CONFIG / "collector.yaml", **environment: str
    ) -> None:
        grpc, http, self.prometheus_port, self.traced_port, self.telemetry_port, self.health_port, nobody = free_ports(
            7
        )
        self.otlp_grpc = f"http://127.0.0.1:{grpc}"
        self.otlp_http = f"http://127.0.0.1:{http}"
        variables = {
            "SHEKEL_OTLP_GRPC": f"127.0.0.1:{grpc}",
            "SHEKEL_OTLP_HTTP": f"127.0.0.1:{http}",
            "SHEKEL_METRICS": f"127.0.0.1:{self.prometheus_port}",
            "SHEKEL_TRACED": f"127.0.0.1:{self.traced_port}",
            "SHEKEL_JAEGER": jaeger or f"127.0.0.1:{nobody}",
            "SHEKEL_HEALTH": f"127.0.0.1:{self.health_port}",
            "SHEKEL_TELEMETRY_PORT": str(self.telemetry_port),
            "SHEKEL_SPAN_SECONDS": "1",
        }
        super().__init__(
            "otelcol", [str(binary("otelcol")), "--config", str(config)], folder, {**variables, **environment}
        )

    def alive(self) -> bool:
        """The health check says so."""
        return _answers(f"http://127.0.0.1:{self.health_port}/")

    def exposed(self, port: int | None = None) -> dict[str, float]:
        """What it shows Prometheus now: series as text → value.

        Args:
            port: `prometheus_port` (default), `traced_port` or `telemetry_port`.
        """
        text = get(f"http://127.0.0.1:{port or self.prometheus_port}/metrics")
        rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, _, value in rows}

    def total(self, metric: str, port: int | None = None) -> float:
        """The sum of all series of a metric that it shows now."""
        return sum(v for k, v in self.exposed(port).items() if re.match(rf"{re.escape(metric)}(\{{|$)", k))


class Prometheus(Program):
    """Prometheus with our configuration, of which a copy scrapes the given collector, and every second.

    Args:
        folder: for its data.
        collector: what to scrape; any of our fixed ports elsewhere stay as they are.
        scrape: seconds between scrapes, and between evaluations of rules.
        port: where it listens; a free one by default.

    Attributes:
        url: of its API.
    """

    def __init__(self, folder: Path, collector: Collector, scrape: float = 1.0, port: int | None = None) -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "config"
        shutil.copytree(CONFIG / "prometheus", config)
        main = config / "prometheus.yml"
        main.write_text(re.sub(r"(scrape|evaluation)_interval: \w+", rf"\1_interval: {scrape:g}s", main.read_text()))
        for rules in (config / "rules").glob("*.yml"):
            rules.write_text(re.sub(r"interval: 1m\b", f"interval: {scrape:g}s", rules.read_text()))
        targets = config / "scrape.yml"
        ports = {8889: collector.prometheus_port, 8890: collector.traced_port, 8888: collector.telemetry_port}
        targets.write_text(re.sub(r":(\d{4})\b", lambda m: f":{ports[int(m[1])]}", targets.read_text()))
        command = [
            str(binary("prometheus")),
            f"--config.file={main}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--enable-feature={PROMETHEUS_FEATURES}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", command, folder)

    def alive(self) -> bool:
        """It is ready to answer queries."""
        return _answers(f"{self.url}/-/ready")

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """An instant query: the rows of the result, with `metric` and `value`.

        Args:
            at: seconds since 1970; now by default.
        """
        given = {"query": promql} if at is None else {"query": promql, "time": repr(at)}
        try:
            answer = json.loads(get(f"{self.url}/api/v1/query", **given))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{promql}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        return [{"metric": {}, "value": found}] if answer["data"]["resultType"] == "scalar" else list(found)

    def value(self, promql: str, at: float | None = None) -> float | None:
        """The one number that a query answers; None where it answers nothing."""
        rows = self.query(promql, at)
        assert len(rows) <= 1, (promql, rows)
        return float(rows[0]["value"][1]) if rows else None


class Jaeger(Program):
    """Jaeger with our configuration, and Prometheus behind its Monitor.

    Args:
        folder: for its log and its traces.
        prometheus: URL of Prometheus; may be one that is started later.

    Attributes:
        url: of its API.
        otlp_grpc: "host:port" that takes traces.
    """

    def __init__(self, folder: Path, prometheus: str = "http://127.0.0.1:9") -> None:
        self.port, grpc, otlp, health = free_ports(4)
        self.url = f"http://127.0.0.1:{self.port}"
        self.otlp_grpc = f"127.0.0.1:{otlp}"
        variables = {
            "JAEGER_OTLP": str(otlp),
            "JAEGER_UI": str(self.port),
            "JAEGER_GRPC": str(grpc),
            "JAEGER_HEALTH": str(health),
            "JAEGER_DATA": str(folder / "data"),
            "JAEGER_UI_FILE": str(CONFIG / "jaeger" / "ui-config.json"),
            "PROMETHEUS_URL": prometheus,
        }
        config = CONFIG / "jaeger" / "jaeger.yaml"
        super().__init__("jaeger", [str(binary("jaeger")), "--config", str(config)], folder, variables)

    def alive(self) -> bool:
        """Its API answers, and it takes traces."""
        host, _, port = self.otlp_grpc.partition(":")
        socket.create_connection((host, int(port)), 5).close()
        return _answers(f"{self.url}/api/services")

    def api(self, path: str, **query: str) -> Any:
        """What its API says at `/api/{path}`."""
        return json.loads(get(f"{self.url}/api/{path}", **query))

    def traces_by_id(self, trace: str) -> list[dict[str, Any]]:
        """The trace with this id, alone; nothing where it is not there yet."""
        try:
            return list(self.api(f"traces/{trace}")["data"])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise

    def traces(self, service: str, tags: Mapping[str, str] = {}, limit: int = 2000) -> list[dict[str, Any]]:
        """Traces of a service whose spans have these tags, as Jaeger's search finds them.

        Args:
            tags: attribute → value, as text.
        """
        query = {"service": service, "limit": str(limit), "lookback": "1h"}
        if tags:
            query["tags"] = json.dumps(dict(tags))
        return list(self.api("traces", **query)["data"])
