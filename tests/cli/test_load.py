"""`shekel demo --load`: it runs as people run it, in a process of its own, and exports to a real receiver."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shekel.cli import main

_COMMAND = [sys.executable, "-m", "shekel.cli", "demo"]
_LAST = re.compile(r"(\d+) sessions; calls: (.+); spent \$([\d.]+), the provider bills \$([\d.]+)$")


class Receiver(ThreadingHTTPServer):
    """An OTLP/HTTP receiver that keeps the calls' spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.calls: list[dict[str, object]] = []
        self.paths: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.add(self.path)
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        told = {a.key: a.value.string_value or a.value.double_value for a in span.attributes}
                        if "shekel.outcome" in told:
                            self.server.calls.append(told)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


def test_it_exports_as_many_calls_as_it_says_and_spends_what_it_says(receiver: Receiver) -> None:
    done = subprocess.run(
        [*_COMMAND, "--otlp", receiver.url, "--load", "3"],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    last = _LAST.match(done.stdout.splitlines()[-1])
    assert last, done.stdout
    ended = sum(int(part.split()[0]) for part in last[2].split(", "))
    assert ended == len(receiver.calls) > 0
    spent = sum(float(str(call.get("gen_ai.usage.cost.amount", 0.0))) for call in receiver.calls)
    assert spent == pytest.approx(float(last[3]), abs=0.0001)
    assert receiver.paths == {"/v1/traces", "/v1/metrics"}
    assert len({call.get("user.id") for call in receiver.calls}) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_without_an_end_it_stops_when_it_is_asked_to_and_tells_everything(receiver: Receiver) -> None:
    with subprocess.Popen(
        [*_COMMAND, "--otlp", receiver.url, "--load", "0"],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "until Ctrl+C" in first
        second = process.stdout.readline()  # after ten seconds: it serves
        assert _LAST.match(second), second
        process.send_signal(signal.SIGTERM)
        said, complained = process.communicate(timeout=60)
    assert (process.returncode, complained) == (0, "")
    last = _LAST.match(said.splitlines()[-1])
    assert last, said
    assert sum(int(part.split()[0]) for part in last[2].split(", ")) == len(receiver.calls)


@pytest.mark.parametrize("seconds", ["-1", "soon", "inf", "nan"])
def test_a_time_that_is_none_is_named(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", f"--load={seconds}"])
    assert ended.value.code == 2
    assert f"must be a number of seconds, 0 or more, not '{seconds}'" in capsys.readouterr().err


def test_without_an_endpoint_it_says_how_to_give_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    assert main(["demo", "--load", "1"]) == 2
    assert "shekel demo --otlp http://localhost:4318 --load 60" in capsys.readouterr().err
