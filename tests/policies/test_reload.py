"""Policies that change while calls are under way, by hand and by a file: no charge is lost, a broken file is none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import shekel
from budgets.conftest import ask, billed, until
from shekel import BudgetExceededError, context, faults, per, scope
from shekel.policies.watch import PolicyWatch
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider

from .desk import IN, OUT, Desk

CALL = 100 * (IN + OUT)
ADA = {"user_id": "ada"}
FAST = 0.005


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shekel.toml"
    yield path
    shekel.configure(policies=[])


def policy(limit: str, name: str = "users") -> str:
    return f'[policies.{name}]\nper = "user.id"\nlimit = "{limit}"\n'


def in_force() -> list[str]:
    return [str(limit) for each in the_runtime().policies.in_force for limit in each.limits]


def settled(who: dict[str, str]) -> list[int]:
    runtime = the_runtime()
    with scope(**who):
        claims = list(runtime.policies.claims(context.current(), time.time()))
    return [runtime.ledger.read(claim.meter, int(time.time() * 1e6)).settled for claim in claims]


class TestByHand:
    def test_another_amount_holds_at_once_and_keeps_what_was_spent(self) -> None:
        desk = Desk(per("user.id", "2 calls/day"))
        assert [desk.passes(ADA) for _ in range(3)] == [True, True, False]
        desk.policies.set([per("user.id", "3 calls/day")])
        assert [desk.passes(ADA) for _ in range(2)] == [True, False]
        desk.policies.set([per("user.id", "1 call/day")])
        assert not desk.passes(ADA)
        assert desk.spent(ADA) == [3]

    def test_an_open_stream_has_the_limit_of_now_and_none_where_its_policy_is_gone(self) -> None:
        desk = Desk(per("user.id", "1k tokens"))
        call = desk.admit(ADA, stream=True, cap=None)
        call.streaming(call.endpoint.reader(call.request, desk.gate.estimator.rates(call.model)))
        desk.policies.set([per("user.id", "10k tokens")])
        assert desk.gate.extend(call, 5_000)
        desk.policies.set([per("session.id", "1 call")])
        assert desk.gate.extend(call, 500_000)
        desk.policies.set([per("user.id", "1k tokens")])
        assert not desk.gate.extend(call, 500_300)
        assert call.cut is not None
        desk.end(call, tokens=7)
        assert desk.spent(ADA) == [14]

    def test_what_an_open_call_costs_is_charged_where_it_was_admitted(self) -> None:
        desk = Desk(per("user.id", "$1"))
        call = desk.admit(ADA)
        desk.policies.set([per("session.id", "$1")])
        cost = desk.end(call)
        desk.policies.set([per("user.id", "$1")])
        assert desk.spent(ADA) == [cost]

    def test_another_window_starts_anew_and_the_old_one_is_known_when_it_comes_back(self) -> None:
        desk = Desk(per("user.id", "1 call/day"))
        assert [desk.passes(ADA) for _ in range(2)] == [True, False]
        desk.policies.set([per("user.id", "1 call/hr")])
        assert desk.passes(ADA)
        desk.policies.set([per("user.id", "1 call/day")])
        assert not desk.passes(ADA)

    def test_an_empty_list_ends_them_with_all_they_know(self) -> None:
        shekel.configure(policies=[per("user.id", "5 calls")])
        try:
            assert len(the_runtime().policies.in_force) == 1
        finally:
            shekel.configure(policies=[])
        assert the_runtime().policies.keys == frozenset()
        desk = Desk(per("user.id", "1 call"))
        assert desk.passes(ADA)
        desk.policies.set([])
        assert all(desk.passes(ADA) for _ in range(3))
        desk.policies.set([per("user.id", "1 call")])
        assert desk.passes(ADA)


class TestFile:
    def test_calls_of_a_program_that_names_it_are_limited(
        self, file: Path, client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        file.write_text(policy("1 call") + '[prices]\n"house-model" = "free"\n')
        shekel.configure(policies=file)
        with scope(user_id="ada"):
            ask(client, model="house-model")
            with pytest.raises(BudgetExceededError, match=r"'users' for user.id=ada"):
                ask(client)
        assert len(provider.requests) == 1

    def test_a_change_holds_soon_after_and_keeps_what_was_spent(self, file: Path, client: openai.OpenAI) -> None:
        file.write_text(policy("1 call"))
        shekel.configure(policies=str(file), reload_seconds=FAST)
        with scope(user_id="ada"):
            ask(client)
        file.write_text(policy("2 calls"))
        until(lambda: in_force() == ["2 calls"])
        with scope(user_id="ada"):
            ask(client)
            with pytest.raises(BudgetExceededError):
                ask(client)

    @pytest.mark.parametrize("broken", ["", "[policies.users\n", policy("nothing"), "\xff\xfe", None])
    def test_a_broken_one_changes_nothing_and_is_said_once_for_each_content(
        self, file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "shekel")
        file.write_text(policy("1 call"))
        shekel.configure(policies=file, reload_seconds=FAST)
        before = faults.counted["read the policy file"]
        if broken is None:
            file.unlink()
        else:
            file.write_bytes(broken.encode("latin-1"))
        until(lambda: faults.counted["read the policy file"] > before)
        time.sleep(20 * FAST)
        if broken is not None:
            os.utime(file)
            time.sleep(20 * FAST)
        assert faults.counted["read the policy file"] == before + 1
        [said] = [record.getMessage() for record in caplog.records if "policy file" in record.getMessage()]
        assert "what was in force stays" in said
        assert "shekel.toml" in said
        assert in_force() == ["1 call"]
        file.write_text(policy("2 calls"))
        until(lambda: in_force() == ["2 calls"])

    @pytest.mark.parametrize("text", [None, "[policies.users\n"])
    def test_one_that_is_not_there_or_broken_at_first_is_an_error_and_those_before_stay(
        self, file: Path, text: str | None
    ) -> None:
        shekel.configure(policies=[per("user.id", "7 calls")])
        if text is not None:
            file.write_text(text)
        with pytest.raises(ValueError, match=r"shekel.toml (cannot be read|is no TOML)"):
            shekel.configure(policies=file)
        assert in_force() == ["7 calls"]

    def test_one_that_anybody_may_write_is_said(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        file.write_text(policy("1 call"))
        file.chmod(0o666)
        shekel.configure(policies=file)
        assert "chmod o-w" in caplog.text
        assert in_force() == ["1 call"]

    def test_policies_set_in_code_end_the_watch(self, file: Path) -> None:
        file.write_text(policy("1 call"))
        shekel.configure(policies=file, reload_seconds=FAST)
        shekel.configure(policies=[per("user.id", "7 calls")])
        file.write_text(policy("2 calls"))
        time.sleep(20 * FAST)
        assert in_force() == ["7 calls"]
        until(lambda: not any(thread.name == "shekel-policies" for thread in threading.enumerate()))

    @pytest.mark.parametrize("options", [{"plan_of": str}, {"reload_seconds": 1}])
    def test_options_of_a_file_need_one(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"is for policies in a file"):
            shekel.configure(policies=[per("user.id", "7 calls")], **options)

    @pytest.mark.parametrize("every", [0, -1, "1", True])
    def test_seconds_that_are_none_are_refused(self, file: Path, every: Any) -> None:
        file.write_text(policy("1 call"))
        with pytest.raises(ValueError, match="reload_seconds must be"):
            shekel.configure(policies=file, reload_seconds=every)

    def test_a_half_written_one_is_not_taken_for_a_short_one(self, tmp_path: Path) -> None:
        """The first half is a file by itself, with fewer policies: it is never put in force."""
        path = tmp_path / "shekel.toml"
        path.write_text(policy("1 call", "a"))
        seen: list[str] = []
        watch = PolicyWatch(path, lambda text: text, seen.append, None)
        with path.open("w") as file:
            for name in "abc":
                file.write(policy("2 calls", name))
                file.flush()
                watch.look()
        watch.look()
        assert seen == [policy("2 calls", "a") + policy("2 calls", "b") + policy("2 calls", "c")]

    def test_a_file_put_in_its_place_is_seen_whatever_its_time_says(self, tmp_path: Path) -> None:
        path, other = tmp_path / "shekel.toml", tmp_path / "other"
        path.write_text("aaaa")
        os.utime(path, (1, 1))
        seen: list[str] = []
        watch = PolicyWatch(path, lambda text: text, seen.append, None)
        watch.look()
        watch.look()
        other.write_text("bbbb")
        os.utime(other, (1, 1))
        other.replace(path)
        watch.look()
        watch.look()
        assert seen == ["bbbb"]


def run(work: Callable[[int], None], threads: int) -> list[BaseException]:
    """Run `work(number)` in so many threads; what was raised."""
    raised: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    started = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return raised


class TestUnderLoad:
    def test_fifty_changes_of_the_file_while_threads_call_lose_no_charge(
        self, file: Path, provider: FakeProvider
    ) -> None:
        """Amounts, policies beside it, broken and missing files in turn: what each user is charged is what the provider
        billed for him, to the nano-dollar."""
        users, clients = 4, 8
        texts = [
            policy("$5/month"),
            policy("$7/month") + policy("1000 calls/hr", "beside"),
            "[policies.users\n",
            policy("$6/month on gpt-4o") + policy("$9/month", "other"),
            policy("$8/month"),
        ]
        file.write_text(texts[0])
        shekel.configure(policies=file, reload_seconds=FAST)
        done = threading.Event()
        costs = [0] * clients
        calls = [0] * clients

        def work(number: int) -> None:
            with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
                while not done.is_set():
                    with scope(user_id=f"user {number % users}"):
                        answer = ask(client, max_tokens=16)
                    receipt = shekel.call_of(answer)
                    assert receipt is not None
                    assert receipt.cost is not None
                    costs[number] += round(receipt.cost * 1e9)
                    calls[number] += 1

        def change() -> None:
            try:
                for number in range(50):
                    text = texts[number % len(texts)]
                    if number % 7 == 6:
                        file.unlink()
                        time.sleep(4 * FAST)
                    if number % 2:
                        beside = file.with_suffix(".new")
                        beside.write_text(text)
                        beside.replace(file)
                    else:
                        file.write_text(text)
                    time.sleep(4 * FAST)
                file.write_text(policy("$8/month") + policy("1000 calls/hr", "beside"))
                until(lambda: in_force() == ["$8/month", "1000 calls/hr"])
            finally:
                done.set()

        changer = threading.Thread(target=change)
        changer.start()
        raised = run(work, clients)
        changer.join()
        assert raised == []
        assert sum(costs) == billed(provider)
        assert sum(calls) >= clients
        kept = the_runtime().policies
        row = next(row for key, row in kept._rows.items() if key[0] == "users" and key[4] is None)
        now = int(time.time() * 1e6)
        span = row.limit.place(time.time()).key
        for user in range(users):
            mine = [number for number in range(clients) if number % users == user]
            there = the_runtime().ledger.read((row, f"user {user}", span), now)
            while_another = self.charged_elsewhere(f"user {user}", span, now)
            assert there.held == 0
            assert there.settled + while_another == sum(costs[number] for number in mine)

    def charged_elsewhere(self, user: str, span: Any, now: int) -> int:
        """What was charged while the file said 'other' in place of the limit for all models."""
        rows = the_runtime().policies._rows
        row = next((row for key, row in rows.items() if key[0] == "other"), None)
        return 0 if row is None else the_runtime().ledger.read((row, user, span), now).settled

    def test_changes_by_hand_while_threads_call_lose_no_charge_on_the_real_gate(self) -> None:
        desk = Desk(per("user.id", "$5/day"))
        done = threading.Event()
        spent = [0] * 8

        def work(number: int) -> None:
            while not done.is_set():
                spent[number] += desk.ask({"user_id": f"user {number % 2}"})

        def change() -> None:
            for number in range(200):
                more = [per("user.id", "1000000 calls/hr", name="more")] if number % 3 else []
                desk.policies.set([per("user.id", f"${5 + number}/day"), *more])
                time.sleep(0.001)
            done.set()

        changer = threading.Thread(target=change)
        changer.start()
        assert run(work, 8) == []
        changer.join()
        for user in range(2):
            assert desk.spent({"user_id": f"user {user}"}, "per user.id") == [sum(spent[user::2])]


PROGRAM = """
import os, sys, time
import openai, shekel
from shekel import BudgetExceededError, scope
from shekel.instrumentor import ShekelInstrumentor

def passed():
    with scope(user_id="ada"), openai.OpenAI(api_key="t", max_retries=0) as client:
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
            return True
        except BudgetExceededError:
            return False

ShekelInstrumentor().instrument()
assert [passed(), passed()] == [True, False]
child = os.fork()
if child == 0:
    shekel.runtime.the_runtime().following.watch._every = 0.005
    assert not passed()
    open(os.environ["SHEKEL_POLICIES"], "w").write('[policies.users]\\nper="user.id"\\nlimit="9 calls"\\n')
    end = time.monotonic() + 30
    while not passed():
        assert time.monotonic() < end
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_environment_names_the_file_and_a_forked_worker_watches_it_too(file: Path, provider: FakeProvider) -> None:
    file.write_text(policy("1 call"))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={**os.environ, "OPENAI_BASE_URL": provider.openai_url, "SHEKEL_POLICIES": str(file)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
