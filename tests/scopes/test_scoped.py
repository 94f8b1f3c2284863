"""Scopes from a function's arguments, and what a scope entry may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

import pytest
from opentelemetry import baggage

from shekel import context, scope, scoped
from shekel.budgets.scope import entries


def payer() -> dict[str, str]:
    return dict(entries(context.current()))


class TestScoped:
    def test_the_value_is_the_arguments_however_it_is_given(self) -> None:
        @scoped(user_id="uid", **{"team.id": "team"})
        def answer(question: str, uid: str = "nobody", *, team: int | None = None) -> dict[str, str]:
            return payer()

        assert answer("?", "ada") == {"user.id": "ada"}
        assert answer("?", uid="bob", team=7) == {"user.id": "bob", "team.id": "7"}
        assert answer("?") == {"user.id": "nobody"}
        assert payer() == {}
        assert answer.__name__ == "answer"

    def test_none_leaves_the_entry_as_it_is(self) -> None:
        @scoped(user_id="uid")
        def answer(uid: str | None) -> dict[str, str]:
            return payer()

        with scope(user_id="ada"):
            assert answer(None) == {"user.id": "ada"}
            assert answer("bob") == {"user.id": "bob"}

    async def test_a_coroutine_and_a_method(self) -> None:
        class Agent:
            @scoped(user_id="uid", propagate=False)
            async def run(self, uid: str) -> tuple[dict[str, str], object]:
                await asyncio.sleep(0)
                return payer(), baggage.get_baggage("user.id")

        assert iscoroutinefunction(Agent.run)
        both = await asyncio.gather(Agent().run("ada"), Agent().run(uid="bob"))
        assert both == [({"user.id": "ada"}, None), ({"user.id": "bob"}, None)]

    def test_a_generator_keeps_its_scope_to_itself_whoever_reads_it(self) -> None:
        @scoped(user_id="uid")
        def events(uid: str) -> Iterator[dict[str, str]]:
            yield payer()
            yield payer()

        assert isgeneratorfunction(events)
        ada, bob = events("ada"), events("bob")
        assert [next(ada), next(bob)] == [{"user.id": "ada"}, {"user.id": "bob"}]
        assert payer() == {}
        with ThreadPoolExecutor(1) as pool, scope(user_id="eve"):
            assert pool.submit(next, ada).result() == {"user.id": "ada"}
            assert copy_context().run(next, bob) == {"user.id": "bob"}
            assert payer() == {"user.id": "eve"}
            assert [*ada, *bob] == []

    async def test_an_async_generator_too(self) -> None:
        @scoped(user_id="uid")
        async def events(uid: str) -> AsyncIterator[dict[str, str]]:
            yield payer()
            await asyncio.sleep(0)
            yield payer()

        assert isasyncgenfunction(events)
        stream = events("ada")
        assert await anext(stream) == {"user.id": "ada"}
        assert payer() == {}
        assert await asyncio.create_task(anext(stream), context=Context()) == {"user.id": "ada"}
        assert [each async for each in stream] == []

    @pytest.mark.parametrize("name", ["user", "kwargs", "args", ""])
    def test_a_name_that_is_no_parameter_is_refused_at_the_decoration(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"is no parameter of .*answer; it has: uid, question\."):

            @scoped(user_id=name)
            def answer(uid: str, question: str, *args: str, **kwargs: str) -> None: ...

    def test_no_name_a_bad_key_and_a_classmethod_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"@scoped\(user_id='uid'\)"):
            scoped()
        with pytest.raises(ValueError, match="can be no scope key"):
            scoped(**{"team id": "team"})(lambda team: None)
        with pytest.raises(ValueError, match="put @classmethod above"):
            scoped(user_id="uid")(classmethod(lambda cls, uid: None))  # type: ignore[arg-type]

    def test_a_bad_value_is_refused_at_the_call_and_wrong_arguments_as_ever(self) -> None:
        @scoped(user_id="uid")
        def answer(uid: Any) -> None: ...

        with pytest.raises(ValueError, match="user_id must not be empty"):
            answer("")
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            answer()  # type: ignore[call-arg]


class TestStatic:
    def test_generators_of_both_kinds_are_in_the_scope_of_their_decorator(self) -> None:
        @scope(user_id="ada")
        def events() -> Iterator[dict[str, str]]:
            yield payer()

        @scope(user_id="bob")
        async def async_events() -> AsyncIterator[dict[str, str]]:
            yield payer()

        async def read() -> list[dict[str, str]]:
            return [each async for each in async_events()]

        assert list(events()) == [{"user.id": "ada"}]
        assert asyncio.run(read()) == [{"user.id": "bob"}]


class TestPropagate:
    def test_without_it_the_baggage_has_nothing_and_the_scope_has(self) -> None:
        with scope(user_id="ada", propagate=False), scope(tenant_id="acme"):
            assert payer() == {"user.id": "ada", "tenant.id": "acme"}
            assert baggage.get_all() == {"tenant.id": "acme"}

    def test_the_outer_value_is_not_sent_on_for_the_inner_one(self) -> None:
        with scope(user_id="ada", tenant_id="acme"):
            with scope(user_id="bob", propagate=False):
                assert payer() == {"user.id": "bob", "tenant.id": "acme"}
                assert baggage.get_all() == {"tenant.id": "acme"}
            assert baggage.get_all() == {"user.id": "ada", "tenant.id": "acme"}


class TestValues:
    @pytest.mark.parametrize("value", ["ada", "用户七", "josé@example.org", "a" * 256, 7, 0, -1, "CN=ada;OU=x, y"])
    def test_any_printable_text_and_any_whole_number(self, value: Any) -> None:
        with scope(user_id=value):
            assert payer() == {"user.id": str(value)}

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("", "empty"),
            ("a" * 257, "257 characters"),
            (" ada", "white space"),
            ("ada\n", "white space"),
            ("a\x00da", "cannot be printed"),
            ("a\r\nbaggage: x", "cannot be printed"),
            ("ada\u200b", "cannot be printed"),
            ("\ud800", "cannot be printed"),
            (True, "not a bool"),
            (1.5, "not a float"),
            (b"ada", "not a bytes"),
            (["ada"], "not a list"),
        ],
    )
    def test_all_else_names_the_key_and_the_remedy_and_not_the_value(self, value: Any, why: str) -> None:
        with pytest.raises(ValueError, match=why) as refused:
            scope(user_id=value)
        assert str(refused.value).startswith("user_id ")
        assert "ada" not in str(refused.value)

    @pytest.mark.parametrize("key", ["", "team id", "ключ", "a=b", "a,b", "a" * 257, "shekel.signature"])
    def test_a_key_that_baggage_cannot_carry_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match="scope key"):
            scope(**{key: "x"})

    @pytest.mark.parametrize("value", ["用户七", "CN=ada;OU=x, y", "100%", "a+b", "a b", 'quo"te', "👩" * 256])
    def test_what_is_allowed_reaches_another_service_unchanged(self, value: str) -> None:
        from opentelemetry.baggage.propagation import W3CBaggagePropagator

        sent: dict[str, str] = {}
        with scope(user_id=value, **{"my.key-2": "x"}):
            W3CBaggagePropagator().inject(sent)
        assert sent["baggage"].isascii()
        received = W3CBaggagePropagator().extract(sent, context.Context())
        assert baggage.get_all(received) == {"user.id": value, "my.key-2": "x"}
