"""The demo's last page: the calls with the provider's bill beside them, and the spans as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from rich import box
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..testing import Attempt
from .recording import CallSeen, call_of
from .screen import usd

NANO = 1_000_000_000
_STYLES = {"complete": "green", "cut": "red", "refused": "red", "closed": "yellow"}


def billed(call: CallSeen, bill: Iterable[Attempt]) -> float | None:
    """USD that the provider charges for a call; None if its bill does not know it.

    The stand-in's request ids and answer ids end in the same serial number.
    """
    if not call.response_id:
        return None
    for attempt in bill:
        if call.response_id.endswith(attempt.id.removeprefix("req_")):
            return (attempt.cost or 0) / NANO
    return None


def bill_table(calls: Sequence[CallSeen], bill: Sequence[Attempt]) -> Table:
    """One line per call, and the totals."""
    # The box's own blanks are the only space between columns: nine of them have to fit into 80.
    table = Table(box=box.SIMPLE, padding=0, show_edge=False, show_footer=True, footer_style="bold")
    spent, charged = sum(call.cost for call in calls), sum(a.cost or 0 for a in bill) / NANO
    table.add_column("  #", justify="right")
    table.add_column("model", "total", no_wrap=True)
    for label, total in (("in", "input"), ("cached", "cached"), ("out", "output")):
        table.add_column(label, f"{sum(getattr(c, total) for c in calls):,}", justify="right", no_wrap=True)
    table.add_column("cost USD", f"{spent:.7f}", justify="right", no_wrap=True)
    table.add_column("bill USD", f"{charged:.7f}", justify="right", no_wrap=True)
    table.add_column("difference", _difference(spent, charged), justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for number, call in enumerate(calls, 1):
        bill_usd = billed(call, bill)
        table.add_row(
            str(number),
            Text(call.model if call.model == call.asked else f"> {call.model}"),
            f"{call.input:,}" if call.sent else "-",
            f"{call.cached:,}" if call.sent else "-",
            f"{call.output:,}" if call.sent else "-",
            Text(f"{'~' if call.estimated else ''}{call.cost:.7f}"),
            "-" if bill_usd is None else f"{bill_usd:.7f}",
            _difference(call.cost, bill_usd or 0.0),
            Text(call.outcome, _STYLES.get(call.outcome, "")),
        )
    return table


def check_totals(calls: Sequence[CallSeen], bill: Sequence[Attempt], metric: float) -> str:
    """What the table shows, in words, as far as it is true in this run."""
    parts = []
    exact = [call for call in calls if call.sent and not call.estimated]
    same = sum(1 for call in exact if _nano(call.cost) == _nano(billed(call, bill)))
    parts.append(f"{same} of {len(exact)} finished calls agree with the bill to the last digit.")
    guessed = [(call, billed(call, bill)) for call in calls if call.estimated]
    if guessed:
        inside = sum(1 for call, usd_ in guessed if usd_ is not None and call.low <= usd_ <= call.most)
        parts.append(
            f"~ marks an estimate: nobody reports the usage of a stream that ended early. {inside} of {len(guessed)} "
            "bills lie between the lowest and the highest cost that Shekel gave."
        )
    if any(call.model != call.asked for call in calls):
        parts.append("> marks a fallback.")
    parts.append(f"The counter shekel.cost says {usd(metric)}.")
    return " ".join(parts)


def span_tree(spans: Sequence[ReadableSpan]) -> Tree:
    """The spans below their parents, with the cost of each call."""
    top = Tree("", hide_root=True, guide_style="dim")
    nodes: dict[int, Tree] = {}
    for span in spans:  # parents start first
        above = top if span.parent is None else nodes.get(span.parent.span_id, top)
        nodes[span.context.span_id] = above.add(_label(span))
        for event in span.events:
            nodes[span.context.span_id].add(Text(f"event {event.name}", "magenta"))
    return top


def _label(span: ReadableSpan) -> Text:
    label = Text(span.name, "bold", no_wrap=True, overflow="ellipsis")
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / NANO
    call = call_of(span)
    if call is None:
        return label.append(f"  {seconds:.2f} s", "dim")
    if call.sent:
        about = "~" if call.estimated else ""
        label.append(f"  {call.input:,} in, {call.output:,} out  {about}{usd(call.cost)}", "not bold")
    return label.append(f"  {call.outcome}", f"not bold {_STYLES.get(call.outcome, '')}").append(
        f"  {seconds:.2f} s", "dim not bold"
    )


def _difference(ours: float, theirs: float) -> str:
    nano = _nano(ours) - _nano(theirs)
    return "0" if nano == 0 else f"{nano / NANO:+.7f}"


def _nano(usd_: float | None) -> int:
    return round((usd_ or 0.0) * NANO)
