"""Every error of a budget travels: through pickle, copy, and from one process to another, as it was."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import openai
import pytest

from shekel import Budget, BudgetExceededError, budget, exceptions
from shekel.budgets import errors, part_errors
from shekel.testing import FakeProvider, Reply

from .conftest import HELLO, MODEL, ask, stream

CLASSES = sorted(
    {
        each
        for module in (errors, part_errors, exceptions)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Exception) and each.__module__.startswith("shekel.")
    },
    key=lambda each: each.__name__,
)


def example(kind: type[Exception]) -> Exception:
    """One of that kind, with a value for each argument that has to be given."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # it takes what every exception takes
        return kind("a sentence")
    return kind(
        *(
            "a name" if "str" in str(each.annotation) else 3
            for each in parameters
            if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
        )
    )


def same(one: BaseException, other: BaseException) -> None:
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert one.args == other.args
    assert vars(one) == vars(other)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_pickled_and_copied(kind: type[Exception]) -> None:
    error = example(kind)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        same(pickle.loads(pickle.dumps(error, protocol)), error)
    same(copy.copy(error), error)
    same(copy.deepcopy(error), error)


def _raise(kind: str, url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="t", max_retries=0) as client:
        if kind == "exceeded":
            with budget("$0.00001", name="far"):
                ask(client)
        if kind == "calls":
            with budget("1 call/hr", name="far"):
                ask(client)
                ask(client)
        if kind == "paused":
            with budget("$0.00001", name="far", at_limit="pause", max_wait=0.01):
                ask(client)
        if kind == "unpriced":
            with budget("$1", name="far"):
                ask(client, model="nobodys-model")
        if kind == "unbounded":
            with budget("$1", name="far", mode="strict"):
                client.responses.create(model=MODEL, input="go on", previous_response_id="resp_1")
        if kind == "cut":
            with budget("$0.0001", name="far"):
                list(stream(client))
        if kind == "finished":
            with budget("$0.0001", name="far", at_limit="finish"):
                list(stream(client))
        if kind == "stopped":
            b = budget(name="far")
            b.stop()
            b.run(ask, client)
        if kind == "velocity":
            with budget("$1", name="far", max_velocity="$0.00001/min"):
                ask(client)
        if kind == "fallback":
            with budget("$1", fallback="claude-haiku-4-5"):
                ask(client)


KINDS = {
    "exceeded": ("BudgetExceededError", "exceeded"),
    "calls": ("BudgetExceededError", "exceeded"),
    "paused": ("BudgetPausedError", "paused"),
    "unpriced": ("UnpricedModelError", "unpriced"),
    "unbounded": ("UnboundedCallError", "unbounded"),
    "cut": ("BudgetExceededError", "cut"),
    "finished": ("BudgetExceededError", "finished"),
    "stopped": ("BudgetExceededError", "stopped"),
    "velocity": ("SpendVelocityExceededError", "exceeded"),
    "fallback": ("FallbackError", None),
}


def test_through_a_pool_of_processes(provider: FakeProvider) -> None:
    provider.default = Reply(output_tokens=1000)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {kind: pool.submit(_raise, kind, provider.openai_url) for kind in KINDS}
        for kind, future in futures.items():
            error = future.exception(timeout=120)
            name, reason = KINDS[kind]
            assert type(error).__name__ == name, (kind, error)
            if isinstance(error, BudgetExceededError):
                assert (error.reason, error.budget) == (reason, "far")
                assert str(error)
                for word in ("far", "$", MODEL):
                    assert word not in error.public_message


def test_no_error_is_retried_by_an_sdk(provider: FakeProvider) -> None:
    with openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=5) as client:
        asked: list[Any] = []
        with budget("$0.000001", on_exceed=asked.append), pytest.raises(BudgetExceededError):
            client.chat.completions.create(model=MODEL, messages=HELLO)
    assert len(asked) == 1


def test_no_content_and_no_key_is_in_an_error(provider: FakeProvider) -> None:
    with openai.OpenAI(base_url=provider.openai_url, api_key="sk-very-secret", max_retries=0) as client:
        for kind in ("$0.000001", "$1 mode=strict"):
            with budget(kind), pytest.raises(BudgetExceededError) as refused:
                client.responses.create(model=MODEL, input="the words", previous_response_id="resp_secret")
            text = f"{refused.value} {vars(refused.value)} {refused.value.args}"
            for secret in ("sk-very-secret", "the words", "resp_secret"):
                assert secret not in text


def test_the_number_of_classes_is_not_nothing() -> None:
    assert len(CLASSES) >= 12
    assert isinstance(budget(), Budget)
