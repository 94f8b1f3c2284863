"""Tools: counted and charged before they run, refused before they run, whatever kind of callable they are."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from shekel import (
    AgentLoopError,
    Budget,
    BudgetExceededError,
    ToolBudgetExceededError,
    budget,
    configure,
    per,
    scope,
    tool,
    with_budget,
)

from .conftest import CENT

Ask = Any


@tool
def read_file(path: str, ran: list[str]) -> str:
    """Read a file."""
    ran.append(path)
    return path.upper()


@tool(price=0.10)
def search(query: str, ran: list[str]) -> str:
    ran.append(query)
    return query


class Weather:
    """A tool of somebody else's: an object that can be called."""

    unit = "°C"

    def __init__(self) -> None:
        self.ran = 0

    def __call__(self, city: str) -> str:
        self.ran += 1
        return f"{city}: 20 {self.unit}"


class TestKinds:
    def test_a_function_stays_what_it_was(self) -> None:
        assert (read_file.__name__, read_file.__doc__) == ("read_file", "Read a file.")
        assert list(inspect.signature(read_file).parameters) == ["path", "ran"]
        assert pickle.loads(pickle.dumps(read_file)) is read_file

    def test_outside_any_budget_it_just_runs(self) -> None:
        ran: list[str] = []
        assert read_file("a", ran) == "A"
        assert search("b", ran) == "b"
        assert ran == ["a", "b"]

    def test_parentheses_alone_are_the_same(self) -> None:
        @tool()
        def plain(x: int) -> int:
            return x + 1

        with budget() as b:
            assert plain(1) == 2
        assert b.tool_calls_used == 1

    async def test_a_coroutine_function_is_one(self) -> None:
        @tool(price=0.25)
        async def fetch(url: str) -> str:
            await asyncio.sleep(0)
            return url

        assert inspect.iscoroutinefunction(fetch)
        async with budget(max_tool_calls=1) as b:
            assert await fetch("x") == "x"
            with pytest.raises(ToolBudgetExceededError):
                await fetch("y")
        assert (b.tool_calls_used, b.tool_spent) == (1, 0.25)

    def test_a_generator_is_charged_when_it_is_called(self) -> None:
        ran = []

        @tool
        def pages(n: int) -> Iterator[int]:
            ran.append(n)
            got = yield from range(n)
            return got

        with budget(max_tool_calls=1) as b:
            made = pages(3)
            assert b.tool_calls_used == 1
            with pytest.raises(ToolBudgetExceededError):
                pages(2)
        assert list(made) == [0, 1, 2]
        assert ran == [3]

    def test_a_generator_can_be_sent_and_thrown_into(self) -> None:
        @tool
        def echo() -> Iterator[Any]:
            got: Any = None
            while got != "stop":
                try:
                    got = yield got
                except ValueError as error:
                    got = error
            return "done"

        steps: Any = echo()
        assert next(steps) is None
        assert steps.send(5) == 5
        error = ValueError()
        assert steps.throw(error) is error
        with pytest.raises(StopIteration) as end:
            steps.send("stop")
        assert end.value.value == "done"

    async def test_an_async_generator_too(self) -> None:
        @tool
        async def echo() -> AsyncIterator[Any]:
            got: Any = None
            while got != "stop":
                try:
                    got = yield got
                except ValueError as error:
                    got = error

        with budget(max_tool_calls=1) as b:
            steps: Any = echo()
            assert b.tool_calls_used == 1
            with pytest.raises(ToolBudgetExceededError):
                echo()
        assert await anext(steps) is None
        assert await steps.asend(5) == 5
        error = ValueError()
        assert await steps.athrow(error) is error
        with pytest.raises(StopAsyncIteration):
            await steps.asend("stop")

    async def test_an_async_generator_that_is_closed_closes_the_tool(self) -> None:
        closed = []

        @tool
        async def rows() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                closed.append(True)

        steps: Any = rows()
        assert await anext(steps) == 1
        await steps.aclose()
        assert closed == [True]

    def test_an_object_stays_itself_and_is_counted_by_its_class(self) -> None:
        plain = Weather()
        weather = tool(plain, price=0.5)
        assert isinstance(weather, Weather)
        assert weather.unit == "°C"
        with budget(max_tool_calls=1) as b:
            assert weather("Rome") == "Rome: 20 °C"
            with pytest.raises(ToolBudgetExceededError, match="'Weather'"):
                weather("Oslo")
        assert plain.ran == weather.ran == 1
        assert b.summary_data()["by_tool"] == {"Weather": {"calls": 1, "cost": 0.5, "framework": "manual"}}
        again = pickle.loads(pickle.dumps(weather))
        with budget() as b:
            again("Bern")
        assert b.tool_spent == 0.5

    async def test_an_object_whose_call_is_async(self) -> None:
        class Slow:
            async def __call__(self, x: int) -> int:
                await asyncio.sleep(0)
                return x

        slow = tool(Slow())
        with budget(max_tool_calls=1):
            assert await slow(3) == 3
            with pytest.raises(ToolBudgetExceededError):
                await slow(4)

    def test_methods(self) -> None:
        class Shop:
            @tool
            def buy(self, what: str) -> str:
                return what

            @staticmethod
            @tool
            def open() -> bool:
                return True

            @classmethod
            @tool
            def name(cls) -> str:
                return cls.__name__

        with budget() as b:
            assert Shop().buy("tea") == "tea"
            assert Shop.open()
            assert Shop.name() == "Shop"
        assert set(b.summary_data()["by_tool"]) == {"buy", "open", "name"}

    def test_staticmethod_may_stand_below(self) -> None:
        class Shop:
            @tool
            @staticmethod
            def buy(what: str) -> str:
                return what

            @with_budget(max_tool_calls=1)
            @staticmethod
            async def order(what: str) -> str:
                return Shop().buy(what)

        with budget() as b:
            assert Shop.buy("tea") == Shop().buy("tea") == "tea"
            assert asyncio.run(Shop().order("tea")) == "tea"
        assert set(b.summary_data()["by_tool"]) == {"buy"}
        assert b.tool_calls_used == 3

    @pytest.mark.parametrize("value", [5, "search", [], classmethod(len)])
    def test_what_cannot_be_called_is_refused(self, value: Any) -> None:
        with pytest.raises(TypeError, match="tool"):
            tool(value)

    @pytest.mark.parametrize(
        "price",
        [
            *(-1, float("nan"), float("inf"), "free", True, 1e308, 9.3e9),
            *(Decimal("NaN"), Decimal("sNaN"), Decimal("1E+999999"), pytest.param(10**400, id="huge")),
            pytest.param(10**5000, id="larger than Python writes"),
        ],
    )
    def test_a_price_that_is_none_is_refused(self, price: Any) -> None:
        with pytest.raises(ValueError, match=r"^price .*give USD per run"):
            tool(price=price)

    @pytest.mark.parametrize(("price", "nano"), [(1e-12, 1), (Decimal("1E-999999"), 1), (9e9, 9 * 10**18), (0, 0)])
    def test_a_price_is_rounded_up(self, price: Any, nano: int) -> None:
        assert Budget(tool_prices={"x": price}).tool_price("x") == nano


class TestLimit:
    def test_the_limit_holds_before_the_tool_runs(self) -> None:
        ran: list[str] = []
        with budget(max_tool_calls=3, name="b") as b:
            for name in "abc":
                read_file(name, ran)
            assert (b.tool_calls_used, b.tool_calls_remaining) == (3, 0)
            with pytest.raises(ToolBudgetExceededError) as refused:
                read_file("d", ran)
        assert ran == ["a", "b", "c"]
        assert b.tool_calls_used == 3
        error = refused.value
        assert (error.tool_name, error.calls_used, error.calls_limit) == ("read_file", 3, 3)
        assert (error.usd_spent, error.usd_limit, error.framework) == (0, None, "manual")
        assert not isinstance(error, BudgetExceededError)

    def test_the_error_says_the_money_too_where_it_is_the_count_that_refuses(self) -> None:
        with budget(max_usd=1, max_tool_calls=1) as b:
            search("a", [])
            for run in (read_file, search):  # a free one, and one with a price
                with pytest.raises(ToolBudgetExceededError, match=r"1 of 1 tool calls used") as refused:
                    run("b", [])
                assert (refused.value.usd_spent, refused.value.usd_limit) == (b.spent, 1.0) == (0.1, 1.0)

    def test_a_tool_that_fails_is_counted_and_charged(self) -> None:
        @tool(price=0.25)
        def broken() -> None:
            raise OSError("no")

        with budget(max_usd=1, max_tool_calls=2) as b:
            for _ in range(2):
                with pytest.raises(OSError, match="no"):
                    broken()
            with pytest.raises(ToolBudgetExceededError):
                broken()
        assert (b.tool_calls_used, b.tool_spent, b.spent) == (2, 0.5, 0.5)

    def test_without_a_limit_it_only_counts(self) -> None:
        with budget() as b:
            for _ in range(4):
                search("x", [])
        assert (b.tool_calls_used, b.tool_calls_remaining) == (4, None)
        assert b.tool_spent == pytest.approx(0.4)

    def test_it_accumulates_over_blocks_and_is_forgotten_by_reset(self) -> None:
        b = budget(max_tool_calls=2)
        for _ in range(2):
            with b:
                read_file("x", [])
        with b, pytest.raises(ToolBudgetExceededError):
            read_file("x", [])
        b.reset()
        assert (b.tool_calls_used, b.tool_spent, b.tool_calls_remaining) == (0, 0, 2)
        with b:
            read_file("x", [])

    def test_every_budget_around_is_charged_and_may_refuse(self) -> None:
        ran: list[str] = []
        with budget(max_tool_calls=2, name="outer") as outer, budget(max_tool_calls=9, name="inner") as inner:
            search("a", ran)
            search("b", ran)
            with pytest.raises(ToolBudgetExceededError) as refused:
                search("c", ran)
        assert (outer.tool_calls_used, inner.tool_calls_used) == (2, 2), "refused by one, charged to none"
        assert outer.tool_spent == inner.tool_spent == pytest.approx(0.2)
        assert refused.value.budget == "outer"

    @pytest.mark.parametrize("kind", ["threads", "tasks"])
    def test_many_at_once_hold_exactly(self, kind: str) -> None:
        ran: list[str] = []
        refused: list[Exception] = []
        b = budget(max_tool_calls=3)

        @tool
        async def later(name: str) -> None:
            await asyncio.sleep(0)
            ran.append(name)

        def in_thread(start: threading.Barrier) -> None:
            start.wait()
            with b:
                try:
                    read_file("x", ran)
                except ToolBudgetExceededError as error:
                    refused.append(error)

        async def in_tasks() -> None:
            with b:
                ends = await asyncio.gather(*(later("x") for _ in range(20)), return_exceptions=True)
            refused.extend(end for end in ends if isinstance(end, ToolBudgetExceededError))

        if kind == "threads":
            start = threading.Barrier(20)
            threads = [threading.Thread(target=in_thread, args=(start,)) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            asyncio.run(in_tasks())
        assert len(ran) == 3
        assert len(refused) == 17
        assert b.tool_calls_used == 3

    def test_a_limit_per_hour(self) -> None:
        with budget("2 tool calls/hr", name="b"):
            read_file("a", [])
            read_file("b", [])
            with pytest.raises(ToolBudgetExceededError) as refused:
                read_file("c", [])
        assert refused.value.retry_after == pytest.approx(3600, rel=0.05)

    def test_a_policy_counts_tools_too(self) -> None:
        configure(policies=[per("user.id", "1 tool call")])
        try:
            for user in ("ada", "bob"):
                with scope(user_id=user):
                    read_file("a", [])
                    with pytest.raises(ToolBudgetExceededError) as refused:
                        read_file("b", [])
                assert refused.value.scope == f"user.id={user}"
        finally:
            configure(policies=[])


class TestMoney:
    def test_tools_and_calls_share_the_money(self, ask: Ask) -> None:
        with budget(max_usd=0.115, **CENT) as b:
            ask()
            search("x", [])
            assert b.spent == pytest.approx(0.11)
            assert b.tool_spent == pytest.approx(0.1)
            assert b.spent_direct == pytest.approx(0.11)
            with pytest.raises(BudgetExceededError):
                ask()

    def test_a_price_of_the_decorator_is_refused_before_it_runs(self) -> None:
        ran: list[str] = []
        with budget(max_usd=0.15, name="b") as b:
            search("a", ran)
            with pytest.raises(ToolBudgetExceededError) as refused:
                search("b", ran)
        assert ran == ["a"]
        assert b.spent == pytest.approx(0.1)
        error = refused.value
        assert (error.usd_spent, error.usd_limit, error.price) == (0.1, 0.15, 0.1)
        assert (error.calls_used, error.calls_limit, error.exceeded_counter) == (1, None, "usd")

    def test_a_price_of_the_budget_goes_before_it_each_its_own(self) -> None:
        with (
            budget(name="outer", tool_prices={"search": 0.02}) as outer,
            budget(name="middle") as middle,
            budget(name="inner", tool_prices={"search": 0.03, "read_file": 0.005}) as inner,
        ):
            search("a", [])
            read_file("b", [])
        assert outer.tool_spent == pytest.approx(0.02)
        assert middle.tool_spent == pytest.approx(0.10)
        assert inner.tool_spent == pytest.approx(0.035)

    def test_a_free_tool_runs_where_no_money_is_left(self, ask: Ask) -> None:
        with budget(max_usd=0.01, **CENT) as b:
            ask()
            read_file("a", [])
        assert b.remaining == 0
        assert b.tool_calls_used == 1

    def test_warn_only_counts_and_goes_on(self) -> None:
        ran: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_usd=0.15, max_tool_calls=1, warn_only=True) as b:
                for _ in range(3):
                    search("x", ran)
        assert len(ran) == b.tool_calls_used == 3
        assert b.tool_spent == pytest.approx(0.3)

    def test_the_threshold_of_a_warning_counts_tools(self) -> None:
        told: list[tuple[float, float]] = []
        with budget(max_tool_calls=4, warn_at=0.5, on_warn=lambda used, limit: told.append((used, limit))):
            for _ in range(4):
                read_file("x", [])
        assert told == [(2, 4)]


class TestLoopGuard:
    def test_it_stops_before_the_tool_runs_again(self) -> None:
        ran: list[str] = []
        with budget(loop_guard=True, name="b") as b:
            for _ in range(5):
                search("x", ran)
            with pytest.raises(AgentLoopError) as stopped:
                search("x", ran)
            assert len(ran) == 5
            read_file("another tool", ran)
            assert b.loop_guard_counts == {"search": 5, "read_file": 1}
        error = stopped.value
        assert isinstance(error, BudgetExceededError)
        assert (error.tool_name, error.repeat_count, error.window_seconds) == ("search", 5, 60.0)
        assert error.spent == pytest.approx(0.5)

    def test_it_is_off_unless_asked_for(self) -> None:
        with budget() as b:
            for _ in range(20):
                read_file("x", [])
        assert b.loop_guard_counts == {}
        assert (b.loop_guard, b.loop_guard_max_calls, b.loop_guard_window_seconds) == (False, 5, 60.0)

    def test_it_comes_before_the_limit_of_tools(self) -> None:
        with budget(loop_guard=True, loop_guard_max_calls=2, max_tool_calls=2):
            read_file("x", [])
            read_file("x", [])
            with pytest.raises(AgentLoopError):
                read_file("x", [])

    def test_what_slid_out_counts_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        from shekel.testing import Clock

        clock = Clock()
        monkeypatch.setattr(time, "time", clock)
        monkeypatch.setattr(time, "time_ns", lambda: int(clock() * 1e9))
        with budget(loop_guard=True, loop_guard_max_calls=2, loop_guard_window_seconds=10) as b:
            read_file("x", [])
            clock.advance(6)
            read_file("x", [])
            with pytest.raises(AgentLoopError):
                read_file("x", [])
            clock.advance(5)  # the first is out
            assert b.loop_guard_counts == {"read_file": 1}
            read_file("x", [])
            with pytest.raises(AgentLoopError):
                read_file("x", [])
            clock.advance(60)
            assert b.loop_guard_counts == {"read_file": 0}

    def test_zero_seconds_are_all_time(self) -> None:
        with budget(loop_guard=True, loop_guard_max_calls=1, loop_guard_window_seconds=0):
            read_file("x", [])
            with pytest.raises(AgentLoopError, match="all-time"):
                read_file("x", [])

    def test_warn_only_says_it_and_goes_on(self) -> None:
        ran: list[str] = []
        with budget(loop_guard=True, loop_guard_max_calls=2, warn_only=True, name="b"):
            read_file("x", ran)
            read_file("x", ran)
            with pytest.warns(UserWarning, match="'read_file'.*3 calls"):
                read_file("x", ran)
        assert len(ran) == 3

    def test_reset_forgets_it(self) -> None:
        b = budget(loop_guard=True, loop_guard_max_calls=1)
        for _ in range(2):
            with b:
                read_file("x", [])
            b.reset()
        assert set(b.loop_guard_counts.values()) <= {0}

    def test_each_budget_guards_for_itself(self) -> None:
        with budget(loop_guard=True, loop_guard_max_calls=3, name="outer"):
            for number in range(3):
                with budget(loop_guard=True, loop_guard_max_calls=1, name=f"inner {number}"):
                    read_file("x", [])
                    with pytest.raises(AgentLoopError) as stopped:
                        read_file("x", [])
                    assert stopped.value.budget == f"inner {number}"
            with pytest.raises(AgentLoopError) as stopped:
                read_file("x", [])
            assert stopped.value.budget == "outer"

    async def test_async_tools_are_guarded(self) -> None:
        ran = []

        @tool
        async def poll() -> None:
            ran.append(1)

        async with budget(loop_guard=True, loop_guard_max_calls=2):
            await poll()
            await poll()
            with pytest.raises(AgentLoopError):
                await poll()
        assert len(ran) == 2
