"""Three agents and four tools under one budget, with a share for some of them. No framework.

    OPENAI_API_KEY=… python examples/agents.py "Which river is the longest?"

A planner asks a researcher, who uses tools, and a writer, who may spend little. Each agent is a function inside an
`invoke_agent` span of OpenTelemetry, as any instrumentation of a framework makes it; each tool is a function under
`@tool`. What is capped:

    the whole report        $0.50
    the agent "researcher"  $0.20 of it
    the agent "writer"      $0.05 of it
    the tool "search"       3 runs
    the tool "summarize"    $0.02: it calls a model itself

A cap that is reached ends only what it is for: the planner goes on without it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import openai
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shekel import AgentBudgetExceededError, Budget, ShekelInstrumentor, ToolBudgetExceededError, budget, tool

MODEL = "gpt-4o-mini"
tracer = trace.get_tracer("examples.agents")


@contextmanager
def agent(name: str) -> Iterator[None]:
    """The span of an agent, as the semantic conventions name it."""
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
    with tracer.start_as_current_span(f"invoke_agent {name}", attributes=attributes):
        yield


class Report:
    """One question, and the agents who answer it."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client
        self.skipped: list[str] = []

    def ask(self, prompt: str) -> str:
        answer = self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=200
        )
        return answer.choices[0].message.content or ""

    # The tools

    @tool(price=0.005)  # the search engine's price per query
    def search(self, query: str) -> str:
        return f"Three pages about {query}."

    @tool
    def fetch(self, page: str) -> str:
        return f"The text of {page}"

    @tool
    def summarize(self, text: str) -> str:
        return self.ask(f"Summarize: {text}")

    @tool
    def save(self, text: str) -> str:
        return f"saved {len(text)} characters"

    # The agents

    def plan(self, question: str) -> str:
        with agent("planner"):
            topics = [f"{self.ask(f'Name a topic that answers: {question}')[:40]} ({number})" for number in range(5)]
            notes = [note for topic in topics if (note := self.research(topic))]
            try:
                report = self.write(question, notes)
            except AgentBudgetExceededError as error:
                self.skipped.append(str(error))
                report = "\n".join(notes)
            self.save(report)
            return report

    def research(self, topic: str) -> str | None:
        with agent("researcher"):
            try:
                page = self.fetch(self.search(topic))
                return self.summarize(page)
            except (AgentBudgetExceededError, ToolBudgetExceededError) as error:
                self.skipped.append(str(error))
                return None

    def write(self, question: str, notes: list[str]) -> str:
        with agent("writer"):
            return self.ask(f"Answer {question} from these notes: {notes}")


def report_budget() -> Budget:
    """What a report may cost, and who may spend how much of it."""
    return (
        budget(max_usd=0.50, name="report")
        .agent("researcher", max_usd=0.20)
        .agent("writer", max_usd=0.05)
        .tool("search", max_calls=3)
        .tool("summarize", max_usd=0.02)
    )


def main(question: str, b: Budget | None = None) -> Report:
    """Answer a question under a budget, and print who spent what."""
    b = report_budget() if b is None else b
    report = Report(openai.OpenAI())
    with b:
        print(report.plan(question))
    for each in report.skipped:
        print("skipped:", each)
    print(b.tree())
    return report


if __name__ == "__main__":
    trace.set_tracer_provider(TracerProvider())
    ShekelInstrumentor().instrument()
    main(" ".join(sys.argv[1:]) or "Which river is the longest?")
