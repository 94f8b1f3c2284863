"""An app, as a process of its own: it calls models as it is told, line by line, and says what it knows it has spent.

Each line on standard input is a JSON object with `do` and its arguments, each line on standard output the answer. At
the end of the input it exits as programs do, and its providers are flushed. `python app.py both|traces|metrics`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import shekel
from shekel import Budget, BudgetExceededError, ShekelInstrumentor, budget, scope, with_budget

NANO = 1_000_000_000
MESSAGES: list[Any] = [{"role": "user", "content": "Name three rivers."}]


class App:
    """Its clients, its budget of everything, and what it counted itself."""

    def __init__(self, tells: str) -> None:
        self.counted = InMemoryMetricReader()
        readers: list[MetricReader] = [self.counted]
        if tells in ("both", "metrics"):
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        metrics.set_meter_provider(MeterProvider(readers))
        if tells in ("both", "traces"):
            spans = TracerProvider()
            spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(spans)
        ShekelInstrumentor().instrument()
        self.openai = openai.OpenAI(max_retries=0)
        self.anthropic = anthropic.Anthropic(max_retries=0)
        self.all = budget(name="everything")
        self.penny = budget(max_usd=0.000001, name="penny")
        self.budgets: dict[str, Budget] = {}

    def load(self, calls: int, users: int, seed: int = 0) -> dict[str, int]:
        """So many calls by so many users, eight at once, of every kind; returns how many of each kind."""
        kinds = (self.plain, self.plain, self.plain, self.stream, self.stream, self.messages, self.leave, self.refused)
        with ThreadPoolExecutor(8) as pool:
            done = [
                pool.submit(self._as, f"user-{(seed + n) % users}", kinds[n % len(kinds)] if n % 25 else self.cut)
                for n in range(calls)
            ]
        counts: dict[str, int] = {}
        for each in done:
            counts[each.result()] = counts.get(each.result(), 0) + 1
        return counts

    def crowd(self, calls: int, seed: int) -> int:
        """So many plain calls, each by another user, four at once."""
        with ThreadPoolExecutor(4) as pool:
            return len([*pool.map(lambda n: self._as(f"user-{seed + n}", self.plain), range(calls))])

    def spend(self, calls: int, users: int = 1, **who: str) -> int:
        """So many plain calls, one after the other."""
        for n in range(calls):
            with self.all, scope(user_id=f"user-{n % users}", **who):
                self.plain()
        return calls

    def against(self, name: str, usd: float, calls: int) -> dict[str, Any]:
        """Calls under a budget of that name, which is kept: how many were admitted."""
        kept = self.budgets.setdefault(name, budget(max_usd=usd, name=name))
        admitted = 0
        with self.all:
            for _ in range(calls):
                try:
                    with kept:
                        self.plain()
                    admitted += 1
                except BudgetExceededError:
                    pass
        return {"admitted": admitted, "spent": kept.spent}

    def totals(self) -> dict[str, Any]:
        """What the ledger has and what the counters counted, in USD."""
        counted: dict[str, float] = {}
        found = self.counted.get_metrics_data()
        for resource in found.resource_metrics if found is not None else ():
            for each in resource.scope_metrics:
                for metric in each.metrics:
                    points = list(metric.data.data_points)
                    if points and hasattr(points[0], "value"):
                        counted[metric.name] = sum(float(point.value) for point in points)
        return {"ledger": self.all.spent, "counted": counted}

    def _as(self, user: str, kind: Callable[[], str]) -> str:
        with self.all, scope(user_id=user, session_id=f"session-of-{user}", tenant_id=f"tenant-{user[-1]}"):
            return kind()

    def plain(self) -> str:
        self.openai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        return "plain"

    def stream(self) -> str:
        for _ in self.openai.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True):
            pass
        return "stream"

    def messages(self) -> str:
        with self.anthropic.messages.stream(model="claude-haiku-4-5", max_tokens=300, messages=MESSAGES) as stream:
            stream.get_final_message()
        return "messages"

    def leave(self) -> str:
        stream = self.openai.chat.completions.create(model="gpt-4.1-nano", messages=MESSAGES, stream=True)
        for n, _ in enumerate(stream):
            if n == 10:
                break
        stream.close()
        return "left"

    def refused(self) -> str:
        try:
            with self.penny:
                self.plain()
        except BudgetExceededError:
            return "refused"
        raise AssertionError("a call that does not fit was sent")

    def cut(self) -> str:
        try:
            self.short()
        except BudgetExceededError:
            return "cut"
        raise AssertionError("a stream that does not fit was not cut")

    @with_budget(max_usd=0.00005, name="short")
    def short(self) -> None:
        for _ in self.openai.chat.completions.create(model="gpt-4.1-nano", messages=MESSAGES, stream=True):
            pass


def main() -> None:
    """Do as told until the input ends."""
    app = App(sys.argv[1])
    print(json.dumps({"ready": shekel.__name__}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(app, order.pop("do"))(**order)
        print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    main()
