"""The command `shekel`: what people see first. The demo runs as they run it, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shekel.cli import main

ESC = "\x1b"
_COMMAND = [sys.executable, "-m", "shekel.cli"]
_ROW = re.compile(r"\s*(\d+) (?:> )?(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(~?)([\d.]+)\s+(\S+)\s+(\S+) (\w+)$")


def _environment(**changes: str | None) -> dict[str, str]:
    changes = {"OTEL_EXPORTER_OTLP_ENDPOINT": None, "NO_COLOR": None, "FORCE_COLOR": None, **changes}
    kept = {name: value for name, value in os.environ.items() if name not in changes}
    return {**kept, **{name: value for name, value in changes.items() if value is not None}}


@dataclass
class Receiver:
    """A real OTLP/HTTP receiver on loopback."""

    url: str
    spans: list = field(default_factory=list)
    metrics: list = field(default_factory=list)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    kept.spans += [span for scope in resource.scope_spans for span in scope.spans]
            elif self.path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    kept.metrics += [metric for scope in resource.scope_metrics for metric in scope.metrics]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Receiver(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kept
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def piped(receiver: Receiver) -> subprocess.CompletedProcess[str]:
    """The demo, piped, with an endpoint to export to."""
    return subprocess.run(
        [*_COMMAND, "demo"],
        env=_environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, FORCE_COLOR="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestPiped:
    def test_it_succeeds_without_a_word_on_standard_error(self, piped: subprocess.CompletedProcess[str]) -> None:
        assert (piped.returncode, piped.stderr) == (0, "")

    def test_it_is_plain_text_of_eighty_columns(self, piped: subprocess.CompletedProcess[str]) -> None:
        assert ESC not in piped.stdout
        assert "\r" not in piped.stdout
        assert max(map(len, piped.stdout.splitlines())) <= 80
        assert "…" not in piped.stdout, "something was cropped"

    def test_every_finished_call_costs_what_the_provider_bills(self, piped: subprocess.CompletedProcess[str]) -> None:
        finished = [row for row in _rows(piped.stdout) if row.outcome == "complete"]
        assert len(finished) == 6
        for row in finished:
            assert row.cost == row.bill > 0
            assert not row.estimated

    def test_a_cut_and_an_interrupted_stream_say_that_they_are_estimates(
        self, piped: subprocess.CompletedProcess[str]
    ) -> None:
        ended = {row.outcome: row for row in _rows(piped.stdout) if row.estimated}
        assert set(ended) == {"cut", "closed"}
        assert "2 of 2 bills lie between" in " ".join(piped.stdout.split())
        low, charged, most = (_amount(label, piped.stdout) for label in ("at least", "charged", "at most"))
        assert low <= ended["closed"].bill <= most
        assert low <= charged <= most

    def test_the_refused_call_cost_nothing_and_was_not_sent(self, piped: subprocess.CompletedProcess[str]) -> None:
        (refused,) = [row for row in _rows(piped.stdout) if row.outcome == "refused"]
        assert refused.cost == 0
        assert re.search(r"sent\s+0 requests", piped.stdout)

    def test_both_sdks_and_the_fallback_are_seen(self, piped: subprocess.CompletedProcess[str]) -> None:
        models = [row.model for row in _rows(piped.stdout)]
        assert {"gpt-4.1", "gpt-4.1-mini", "claude-haiku-4-5"} == set(models)
        assert re.search(r"switched\s+from gpt-4.1 to gpt-4.1-mini, when \$0\.00\d+ were spent", piped.stdout)

    def test_it_exports_the_spans_and_metrics_and_says_where(
        self, piped: subprocess.CompletedProcess[str], receiver: Receiver
    ) -> None:
        said = " ".join(piped.stdout.split())
        assert f"Exported {len(receiver.spans)} spans and the metrics over OTLP/HTTP to {receiver.url}" in said
        costs = [
            a.value.double_value for s in receiver.spans for a in s.attributes if a.key == "gen_ai.usage.cost.amount"
        ]
        rows = _rows(piped.stdout)
        assert len(costs) == len(rows)
        assert sum(costs) == pytest.approx(sum(row.cost for row in rows), abs=1e-9)
        (spend,) = [metric for metric in receiver.metrics if metric.name == "shekel.cost"]
        assert sum(p.as_double for p in spend.sum.data_points) == pytest.approx(sum(costs), abs=1e-9)

    def test_the_tree_has_one_span_per_call_below_its_scene(self, receiver: Receiver) -> None:
        (top,) = [span for span in receiver.spans if not span.parent_span_id]
        scenes = {span.span_id for span in receiver.spans if span.parent_span_id == top.span_id}
        calls = [s for s in receiver.spans if s.parent_span_id in scenes]
        assert len(scenes) == 6
        assert len(calls) == 9
        assert len(receiver.spans) == 1 + 6 + 9


@pytest.mark.slow
class TestTerminal:
    def test_on_a_terminal_the_text_grows_and_the_cost_with_it(self) -> None:
        code, out, seconds = _in_terminal(_environment(TERM="xterm-256color"))
        assert code == 0
        assert ESC in out
        seen = re.findall(r"gpt-4\.1 +\d+ chunks +\$([\d.]+)", out)
        assert len(set(seen)) > 10
        assert seen[0] < seen[-1]
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out).replace("\r", "\n").split("\n")
        assert max(map(len, lines)) <= 80
        assert seconds < 20, "about twelve on a machine that is not busy"

    def test_no_color_means_no_escape_code_at_all_and_no_proxy_is_used(self) -> None:
        code, out, _ = _in_terminal(
            _environment(TERM="xterm-256color", NO_COLOR="1", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY=None)
        )
        assert code == 0
        assert ESC not in out
        assert len(_rows(out.replace("\r", ""))) == 9

    def test_a_reader_that_leaves_early_is_no_error(self) -> None:
        with subprocess.Popen(
            [*_COMMAND, "demo"], env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


class TestWhereItCannotRun:
    def test_a_missing_extra_is_one_sentence_with_the_remedy(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; sys.modules['rich'] = None; from shekel.cli import main; sys.exit(main(['demo']))",
            ],
            env=_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "(rich)" in done.stderr
        assert 'pip install "opentelemetry-instrumentation-shekel[demo]"' in done.stderr

    def test_a_disabled_opentelemetry_sdk_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert main(["demo"]) == 2
        assert "OTEL_SDK_DISABLED" in capsys.readouterr().err

    def test_an_export_to_nobody_is_one_sentence(self, caplog: pytest.LogCaptureFixture) -> None:
        from shekel.cli.recording import Recording

        recording = Recording()
        with recording.tracer_provider.get_tracer("test").start_as_current_span("one"):
            recording.meter_provider.get_meter("test").create_counter("c").add(1)
        sent = recording.export("http://127.0.0.1:9")
        recording.shutdown()
        assert not sent.ok
        assert "http://127.0.0.1:9" in sent.sentence
        assert caplog.records == []


class TestCommand:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        import shekel

        with pytest.raises(SystemExit) as end:
            main(["--version"])
        assert end.value.code == 0
        assert capsys.readouterr().out == f"shekel {shekel.__version__}\n"

    def test_help_names_the_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            main(["--help"])
        assert end.value.code == 0
        assert "demo" in capsys.readouterr().out

    def test_without_a_command_it_helps(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        assert "demo" in capsys.readouterr().out

    def test_an_unknown_command_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            main(["dance"])
        assert end.value.code == 2
        assert "dance" in capsys.readouterr().err

    def test_asking_for_the_version_loads_no_sdk(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys\nfrom shekel.cli import main\n"
                "try: main(['--version'])\nexcept SystemExit: pass\n"
                "print({'openai', 'anthropic', 'rich', 'genai_prices'} & set(sys.modules))",
            ],
            env=_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "set()"


@dataclass(frozen=True)
class Row:
    model: str
    estimated: bool
    cost: float
    bill: float
    outcome: str


def _rows(out: str) -> list[Row]:
    """The lines of the table of calls."""
    rows = []
    for match in filter(None, map(_ROW.match, out.splitlines())):
        _, model, _, _, _, about, cost, bill, _, outcome = match.groups()
        rows.append(Row(model, about == "~", float(cost), 0.0 if bill == "-" else float(bill), outcome))
    assert len(rows) == 9, out
    return rows


def _amount(label: str, out: str) -> float:
    """The last amount that stands after a label."""
    return float(re.findall(rf"{label} +\$([\d.]+),", out)[-1])


def _in_terminal(environment: dict[str, str]) -> tuple[int, str, float]:
    """Run the demo on a pseudo-terminal of 80 columns: exit status, output, seconds."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    started = time.monotonic()
    process = subprocess.Popen(
        [*_COMMAND, "demo"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    out = bytearray()
    try:
        while piece := os.read(ours, 65536):
            out += piece
    except OSError:  # how a pseudo-terminal says that its other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=10), out.decode(), time.monotonic() - started
