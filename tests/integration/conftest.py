"""The stack that most tests here share: collector, Prometheus and Jaeger, connected as in real life, started once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from .programs import Collector, Jaeger, Prometheus, binary, free_ports


@dataclass(frozen=True, slots=True)
class Stack:
    """The three programs: apps send to the collector, Prometheus scrapes it, Jaeger takes its traces."""

    collector: Collector
    prometheus: Prometheus
    jaeger: Jaeger


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, running until the last test."""
    for name in ("otelcol", "prometheus", "jaeger"):
        binary(name)
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as running:
        yield start_stack(folder, running)


def start_stack(folder: Path, running: ExitStack) -> Stack:
    """Start a stack whose programs end with `running`."""
    [port] = free_ports(1)
    jaeger = running.enter_context(Jaeger(folder / "jaeger", f"http://127.0.0.1:{port}"))
    collector = running.enter_context(Collector(folder / "collector", jaeger.otlp_grpc))
    prometheus = running.enter_context(Prometheus(folder / "prometheus", collector, port=port))
    return Stack(collector, prometheus, jaeger)
