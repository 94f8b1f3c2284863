"""Starting, stopping, starting again: no threads, sockets or warnings are left."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from typing import Any

import openai
import pytest

from shekel.testing import FakeProvider, Outcome, Reply

GPT = "gpt-4.1-mini"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def steady_files() -> int:
    """The same, once what earlier tests let go is closed: in threads of theirs, or at a second collection."""
    while True:
        gc.collect()
        files = open_files()
        time.sleep(0.1)
        gc.collect()
        if open_files() == files:
            return files


def test_many_in_one_process_leave_nothing_behind() -> None:
    def once() -> None:
        with FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
            client.responses.create(model=GPT, input="?")
            for _ in client.responses.create(model=GPT, input="?", stream=True):
                break

    once()
    files = steady_files()
    threads = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            once()
        gc.collect()
    assert threading.active_count() == threads
    assert open_files() == files


def test_closing_ends_open_streams_and_bills_them() -> None:
    provider = FakeProvider(output_tokens=1000, pace=0.01).start()
    with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        stream: Any = client.responses.create(model=GPT, input="?", stream=True)
        next(stream)
        provider.close()
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    [attempt] = provider.bill
    assert attempt.outcome is Outcome.CLOSED
    assert attempt.output_tokens < 100


def test_closing_twice_is_fine_and_the_address_is_gone() -> None:
    provider = FakeProvider()
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = provider.openai_url
    with provider:
        assert provider.start() is provider
        assert provider.openai_url == f"http://{provider.host}/v1"
    provider.close()
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = provider.host


def test_two_at_once_have_their_own_bills() -> None:
    with FakeProvider(text="one") as one, FakeProvider(text="two") as two:
        with openai.OpenAI(base_url=two.openai_url, api_key="test") as client:
            assert client.responses.create(model=GPT, input="?").output_text == "two"
        assert (len(one.bill), len(two.bill)) == (0, 1)


def test_wait_idle_says_that_it_waited_in_vain() -> None:
    with FakeProvider(stall_after=0) as provider:
        with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
            client.responses.create(model=GPT, input="?", stream=True)
            with pytest.raises(TimeoutError, match="1 request"):
                provider.wait_idle(0.05)
        provider.wait_idle()


def test_the_bill_is_a_sequence_that_can_be_cleared() -> None:
    with FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        for _ in range(3):
            client.responses.create(model=GPT, input="?")
        bill = provider.bill
        assert list(bill) == list(bill.attempts) == [bill[0], bill[1], bill[-1]]
        assert bill[1:] == bill.attempts[1:]
        bill.clear()
        assert (len(bill), bill.total, bill.usd) == (0, 0, 0)


def test_keyword_defaults_are_those_of_reply() -> None:
    assert FakeProvider(Reply(pace=1.0), output_tokens=3).default == Reply(pace=1.0, output_tokens=3)
    with pytest.raises(TypeError, match="tokens_out"):
        FakeProvider(tokens_out=3)


def test_starts_in_no_time() -> None:
    FakeProvider().start().close()
    began = time.monotonic()
    FakeProvider().start().close()
    assert time.monotonic() - began < 1.0
