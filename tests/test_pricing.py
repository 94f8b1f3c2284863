"""Prices: what genai-prices says, to the nano-dollar, rounded up once; the user's own before it; unknown is unknown."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices import Usage as GenaiUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shekel.pricing import Prices, Quote, as_genai_usage, nanos, per_1k, provider_of, usd
from shekel.usage import ModelUsage, Usage

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
PRICES = Prices()
# Each model whose id leads to it, and not to a namesake before it.
LISTED = [
    (provider, model)
    for provider in get_snapshot().providers
    for model in provider.models
    if provider.find_model(model.id) is model
]
OURS = [(provider, model) for provider, model in LISTED if provider.id in ("openai", "anthropic")]
TIERS = {None: {}, "default": {"service_tier": "default"}, "flex": {"service_tier": "flex"}}
TIERS |= {"priority": {"service_tier": "priority"}, "batch": {"processing": "batch"}, "standard": {}, "auto": {}}
SPEEDS = {None: {}, "standard": {}, "fast": {"speed": "fast"}}

moments = st.integers(
    int(datetime(2023, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2027, 12, 31, tzinfo=UTC).timestamp())
)
# Around the thresholds of tiered prices (128,000, 200,000, 256,000, 272,000) as well as small and large.
tokens = (
    st.integers(0, 5_000)
    | st.integers(0, 2_000_000)
    | st.sampled_from([128_000, 200_000, 256_000, 272_000]).flatmap(lambda n: st.integers(n - 1, n + 1))
)
few = st.integers(0, 20)


@st.composite
def consistent_usages(draw) -> Usage:
    """A usage in which every part fits into its whole, whatever the model prices."""
    total_in, total_out = draw(tokens), draw(tokens)

    def split(total, parts):
        cuts = sorted(draw(st.lists(st.integers(0, total), min_size=parts, max_size=parts)))
        return [high - low for low, high in itertools.pairwise([0, *cuts])]

    read, short, long, audio, image, heard = split(total_in, 6)
    reasoning, spoken, drawn = split(total_out, 3)
    return Usage(
        input=total_in,
        output=total_out,
        cache_read=read + heard,
        cache_write=short + long,
        cache_write_1h=long,
        reasoning=reasoning,
        input_audio=audio + heard,
        cache_read_audio=heard,
        input_image=image,
        output_audio=spoken,
        output_image=drawn,
        web_searches=draw(few),
        storage_searches=draw(few),
        code_executions=draw(few),
    )


counts = st.integers(-10, 3_000)
any_usages = st.builds(
    Usage,
    **dict.fromkeys(
        [
            *("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "input_audio"),
            *("output_audio", "cache_read_audio", "input_image", "output_image", "web_searches"),
        ],
        counts,
    ),
)


def listed(provider, model, usage, at, context) -> int:
    """What genai-prices says, converted exactly and rounded up."""
    price = model.calc_price(
        as_genai_usage(usage),
        provider,
        genai_request_timestamp=datetime.fromtimestamp(at, UTC),
        price_context=context,
    )
    exact = Fraction(price.total_price) * 10**9
    return -(-exact.numerator // exact.denominator)


class TestEqualsThePriceList:
    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(OURS) | st.sampled_from(LISTED),
        consistent_usages(),
        moments,
        st.sampled_from(list(TIERS)),
        st.sampled_from(list(SPEEDS)),
    )
    def test_for_any_model_usage_time_and_tier(self, entry, usage, at, tier, speed):
        provider, model = entry
        quote = PRICES.quote(provider.id, model.id, service_tier=tier, speed=speed, at=at)
        assert isinstance(quote, Quote)
        assert quote.model_id == model.id
        assert quote.cost(usage) == listed(provider, model, usage, at, TIERS[tier] | SPEEDS[speed])

    @pytest.mark.slow
    @settings(max_examples=20_000, deadline=None)
    @given(st.sampled_from(LISTED), consistent_usages(), moments, st.sampled_from(list(TIERS)))
    def test_thoroughly(self, entry, usage, at, tier):
        provider, model = entry
        quote = PRICES.quote(provider.id, model.id, service_tier=tier, at=at)
        assert quote.cost(usage) == listed(provider, model, usage, at, TIERS[tier])

    @pytest.mark.parametrize(("provider", "model"), [pytest.param(p, m, id=m.id) for p, m in OURS])
    def test_for_every_model_of_openai_and_anthropic(self, provider, model):
        usage = Usage(
            input=300_001,
            output=1_003,
            cache_read=1_007,
            cache_write=501,
            cache_write_1h=333,
            reasoning=101,
            input_audio=13,
            output_audio=17,
            cache_read_audio=7,
            input_image=19,
            output_image=3,
            web_searches=3,
            storage_searches=2,
            code_executions=1,
        )
        for tier, at in itertools.product((None, "priority", "batch"), (NOW - 5e7, NOW)):
            quote = PRICES.quote(provider.id, model.id, service_tier=tier, at=at)
            assert quote.plan is not None, "compiled, not asked of the list each time"
            assert quote.cost(usage) == listed(provider, model, usage, at, TIERS[tier])

    @settings(deadline=None)
    @given(any_usages, st.sampled_from(OURS))
    def test_counts_that_contradict_each_other_never_raise(self, usage, entry):
        provider, model = entry
        cost = PRICES.quote(provider.id, model.id, at=NOW).cost(usage)
        assert cost >= 0
        try:
            expected = listed(provider, model, usage, NOW, {})
        except ValueError:
            return
        assert cost == expected

    def test_a_part_that_exceeds_its_whole_is_billed_as_counted(self):
        quote = PRICES.quote("anthropic", "claude-sonnet-4-5", at=NOW)
        assert quote.cost(Usage(input=10, cache_read=25, output=1)) == quote.cost(
            Usage(input=25, cache_read=25, output=1)
        )
        assert quote.cost(Usage(input=100, cache_write=10, cache_write_1h=30)) == quote.cost(
            Usage(input=100, cache_write=30, cache_write_1h=30)
        )
        assert quote.cost(Usage(input=-5, output=3)) == quote.cost(Usage(output=3))


class TestRounding:
    def test_is_upwards_once_per_call(self):
        prices = Prices()
        prices.set("cheap", {"input": "0.0001", "output": "0.0003"})  # 0.1 and 0.3 nano-dollars per token
        quote = prices.quote("openai", "cheap", at=NOW)
        assert [quote.cost(Usage(input=n)) for n in (0, 1, 10, 11)] == [0, 1, 1, 2]
        assert quote.cost(Usage(input=3, output=2)) == 1
        usage = Usage(input=3, also=(ModelUsage(None, Usage(input=3)), ModelUsage(None, Usage(input=4))))
        assert prices.cost(quote, usage, provider="openai", at=NOW) == 1

    @settings(deadline=None)
    @given(st.sampled_from(OURS), consistent_usages())
    def test_the_cost_is_less_than_a_nano_dollar_above_the_exact_one(self, entry, usage):
        quote = PRICES.quote(entry[0].id, entry[1].id, at=NOW)
        assert 0 <= quote.cost(usage) - quote.exact(usage) < 1

    @settings(deadline=None)
    @given(st.sampled_from(OURS), consistent_usages(), st.integers(0, 10_000), st.integers(0, 10_000))
    def test_more_tokens_never_cost_less(self, entry, usage, more_in, more_out):
        quote = PRICES.quote(entry[0].id, entry[1].id, at=NOW)
        more = replace(usage, input=usage.input + more_in, output=usage.output + more_out)
        assert quote.cost(more) >= quote.cost(usage)


class TestHolds:
    def test_rates_of_a_plain_model(self):
        quote = PRICES.quote("anthropic", "claude-haiku-4-5", at=NOW)
        assert (quote.input_rate, quote.output_rate) == (1_000, 5_000)
        assert quote.dearest_input == 2_000, "a cache write for an hour costs twice the input"
        assert (quote.dearest_output, quote.max_output) == (5_000, 64_000)
        assert (quote.model_id, quote.source.split()[0]) == ("claude-haiku-4-5", "genai-prices")

    def test_a_tier_left_open_counts_the_dearest_one(self):
        opened = PRICES.quote("openai", "gpt-4o", at=NOW)
        fixed = PRICES.quote("openai", "gpt-4o", service_tier="default", at=NOW)
        priority = PRICES.quote("openai", "gpt-4o", service_tier="priority", at=NOW)
        assert (fixed.dearest_output, priority.output_rate) == (10_000, 17_000)
        assert opened.dearest_output == priority.dearest_output == 17_000
        assert opened.output_rate == fixed.output_rate

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(OURS) | st.sampled_from(LISTED),
        consistent_usages(),
        moments,
        st.sampled_from(list(TIERS)),
        st.sampled_from(list(TIERS)),
    )
    def test_no_token_costs_more_than_the_dearest(self, entry, usage, at, asked, billed):
        provider, model = entry
        if asked not in (None, "auto"):
            billed = asked if billed != "default" else billed
        elif billed == "batch":
            return  # never served to who did not ask for it
        usage = replace(usage, web_searches=0, storage_searches=0, code_executions=0)
        hold = PRICES.quote(provider.id, model.id, service_tier=asked, at=at)
        bill = PRICES.quote(provider.id, model.id, service_tier=billed, at=at)
        fixed = bill.cost(Usage())
        bound = usage.input * hold.dearest_input + usage.output * hold.dearest_output
        assert bill.cost(usage) <= fixed + bound
        assert hold.input_rate <= hold.dearest_input
        assert hold.output_rate <= hold.dearest_output

    def test_max_output_falls_back_to_the_context_window_and_then_to_none(self):
        windows = {model.id: model.context_window for _, model in OURS}
        assert PRICES.quote("openai", "gpt-4.1-mini", at=NOW).max_output == 32_768
        assert PRICES.quote("openai", "o1-mini", at=NOW).max_output == windows["o1-mini"]
        assert PRICES.quote("openai", "davinci-002", at=NOW).max_output is None

    def test_no_documented_maximum_is_above_the_window(self):
        for provider, model in OURS:
            quote = PRICES.quote(provider.id, model.id, at=NOW)
            if model.context_window and quote.max_output and quote.model_id == model.id:
                assert quote.max_output <= model.context_window


class TestResolution:
    @pytest.mark.parametrize(
        ("provider", "asked", "found"),
        [
            ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
            ("openai", "GPT-4o-Mini", "gpt-4o-mini"),
            ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("azure.ai.openai", "gpt-4o", "gpt-4o"),
            ("openai", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ],
    )
    def test_of_names(self, provider, asked, found):
        assert PRICES.quote(provider, asked, at=NOW).model_id == found

    @pytest.mark.parametrize("provider", ["aws.bedrock", "gcp.vertex_ai"])
    def test_of_claude_elsewhere(self, provider):
        name = {"aws.bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0", "gcp.vertex_ai": "claude-sonnet-4-5"}[
            provider
        ]
        assert PRICES.quote(provider, name, at=NOW).output_rate >= 15_000

    def test_the_host_decides_where_it_is_known(self):
        expected = calc_price(
            GenaiUsage(input_tokens=1_000, output_tokens=1_000),
            "llama-3.3-70b-versatile",
            provider_id="groq",
            genai_request_timestamp=datetime.fromtimestamp(NOW, UTC),
        ).total_price
        quote = PRICES.quote("openai", "llama-3.3-70b-versatile", host="api.groq.com", at=NOW)
        assert quote.cost(Usage(input=1_000, output=1_000)) == nanos(expected, up=True)
        assert PRICES.quote("openai", "gpt-4o", host="api.groq.com", at=NOW) is None, "OpenAI's price is not Groq's"
        assert PRICES.quote("openai", "gpt-4o", host="127.0.0.1:8080", at=NOW).model_id == "gpt-4o"

    @pytest.mark.parametrize("name", ["", "no-such-model", "llama-3"])
    def test_of_an_unknown_model_is_none(self, name):
        assert PRICES.quote("openai", name, at=NOW) is None
        assert PRICES.quote("nobody", "gpt-4o", at=NOW) is None

    @pytest.mark.parametrize(
        ("model", "provider"),
        [
            *[("gpt-4o", "openai"), ("o3-mini", "openai"), ("text-embedding-3-small", "openai")],
            *[("claude-sonnet-4-5", "anthropic"), ("anthropic/claude-x", "anthropic"), ("gemini-2.5-pro", "google")],
            *[("no-such-model", None), ("", None)],
        ],
    )
    def test_provider_of(self, model, provider):
        assert provider_of(model) == provider


class TestTime:
    def edges(self):
        for provider, model in LISTED:
            conditions = [*(model.prices if isinstance(model.prices, list) else []), *(model.price_variants or [])]
            for condition in conditions:
                start = getattr(condition.constraint, "start_date", None)
                if start:
                    yield provider, model, datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp()

    def test_prices_change_at_midnight_utc_of_their_start_date(self):
        usage = Usage(input=1_000, output=1_000)
        changes = 0
        for provider, model, edge in itertools.islice(self.edges(), 0, None, 10):
            costs = []
            for at in (edge - 1, edge, edge - 0.001, edge + 0.001, edge - 86_400):
                for tier in (None, "priority"):
                    quote = PRICES.quote(provider.id, model.id, service_tier=tier, at=at)
                    costs.append(quote.cost(usage))
                    assert costs[-1] == listed(provider, model, usage, at, TIERS[tier]), (model.id, at, tier)
            changes += len(set(costs)) > 1
        assert changes > 5

    def test_off_peak_prices_begin_and_end_on_the_second(self):
        provider = next(provider for provider in get_snapshot().providers if provider.id == "deepseek")
        usage = Usage(input=1_000, output=1_000)
        different = set()
        start = datetime(2025, 6, 1, tzinfo=UTC)
        for model in (model for model in provider.models if isinstance(model.prices, list)):
            conditions = [price.constraint for price in model.prices if hasattr(price.constraint, "start_time")]
            for constraint, days in itertools.product(conditions, (0, 1, 400)):
                for edge in (constraint.start_time, constraint.end_time):
                    at = datetime.combine((start + timedelta(days)).date(), edge, edge.tzinfo or UTC).timestamp()
                    for moment in (at - 1, at, at + 1):
                        quote = PRICES.quote("deepseek", model.id, at=moment)
                        assert quote.cost(usage) == listed(provider, model, usage, moment, {})
                        different.add((model.id, quote.cost(usage)))
        assert len(different) > len({name for name, _ in different}), "no model here has an off-peak price"

    def test_an_updated_list_counts_at_once(self):
        prices = Prices()
        before = prices.quote("openai", "gpt-4o", at=NOW)
        twice = ModelInfo(
            id="gpt-4o", match=ClauseEquals("gpt-4o"), prices=ModelPrice(input_mtok=Decimal(5), output_mtok=Decimal(20))
        )
        set_custom_snapshot(
            DataSnapshot([Provider(id="openai", name="OpenAI", api_pattern="x", models=[twice])], from_auto_update=True)
        )
        try:
            assert prices.quote("openai", "gpt-4o", at=NOW).input_rate == 5_000
        finally:
            set_custom_snapshot(None)
        assert prices.quote("openai", "gpt-4o", at=NOW) == before


class TestOddPrices:
    """A price list may hold prices that calculate themselves: they are asked each time, not compiled."""

    class Surcharge(ModelPrice):
        def calc_price(self, usage):
            price = super().calc_price(usage)
            return {**price, "total_price": price["total_price"] * 2}

    def quote(self, price):
        model = ModelInfo(id="odd", match=ClauseEquals("odd"), prices=price)
        snapshot = DataSnapshot(
            [Provider(id="openai", name="x", api_pattern="x", models=[model])], from_auto_update=False
        )
        set_custom_snapshot(snapshot)
        try:
            return Prices().quote("openai", "odd", at=NOW)
        finally:
            set_custom_snapshot(None)

    def test_are_asked_of_the_list(self):
        quote = self.quote(self.Surcharge(input_mtok=Decimal(1), output_mtok=Decimal(2)))
        assert quote.plan is None
        assert quote.cost(Usage(input=10, output=10)) == 60_000
        assert (quote.input_rate, quote.dearest_output) == (2_000, 4_000)

    def test_do_not_raise_on_counts_that_contradict_each_other(self):
        quote = self.quote(
            self.Surcharge(input_mtok=Decimal(1), output_mtok=Decimal(2), cache_read_mtok=Decimal("0.5"))
        )
        assert quote.cost(Usage(input=10, cache_read=20)) == quote.cost(Usage(input=20, cache_read=20)) == 20_000

    def test_a_price_that_the_list_itself_refuses_is_none(self):
        assert self.quote(ModelPrice(cache_read_mtok=Decimal(1))) is None


class TestOverrides:
    def test_go_before_the_list_for_the_dated_names_too(self):
        prices = Prices()
        listed = prices.quote("openai", "gpt-4o", at=NOW)
        prices.set("gpt-4o", {"input": 1, "output": 2.5, "cache_read": Decimal("0.1"), "cache_write": "3"})
        for name in ("gpt-4o", "gpt-4o-2024-08-06", "GPT-4O"):
            quote = prices.quote("openai", name, service_tier="priority", at=NOW)
            assert (
                quote.cost(Usage(input=100, cache_read=10, cache_write=20, output=1)) == 70_000 + 1_000 + 60_000 + 2_500
            )
            assert (quote.source, quote.dearest_input, quote.max_output) == ("override", 3_000, listed.max_output)
        assert prices.quote("openai", "gpt-4o-mini", at=NOW).source != "override"

    def test_give_unknown_models_a_price(self):
        prices = Prices()
        assert prices.quote("openai", "my-model", at=NOW) is None
        prices.set("my-model", {"input": 1, "output": 2})
        assert prices.quote("openai", "my-model", at=NOW).cost(Usage(input=1_000, cache_read=900)) == 1_000_000
        assert prices.quote("nobody", "my-model-2026-01-31", at=NOW).output_rate == 2_000

    def test_free_is_not_unknown(self):
        prices = Prices()
        prices.set("local", "free")
        quote = prices.quote("openai", "local", at=NOW)
        assert quote.cost(Usage(input=10**9, output=10**9)) == 0
        assert (quote.dearest_input, quote.dearest_output) == (0, 0)

    def test_aliases_lead_to_any_priced_model(self):
        prices = Prices()
        prices.alias("prod-chat", "gpt-4o")
        prices.alias("best", "prod-chat")
        prices.alias("claude", "claude-sonnet-4-5")
        assert prices.quote("azure.ai.openai", "Prod-Chat", at=NOW).model_id == "gpt-4o"
        assert prices.quote("openai", "best", at=NOW).model_id == "gpt-4o"
        assert prices.quote("openai", "claude", at=NOW).model_id == "claude-sonnet-4-5"

    def test_per_1k_tokens(self):
        quote = per_1k(0.001, "0.002")
        assert (quote.input_rate, quote.output_rate, quote.source) == (1_000, 2_000, "override")
        assert quote.cost(Usage(input=1_000, output=500)) == nanos("0.002")

    @pytest.mark.parametrize(
        ("price", "says"),
        [
            ({"input": -1, "output": 1}, "input price of 'm' is -1"),
            ({"input": 1, "output": float("nan")}, "output price of 'm' is nan"),
            pytest.param({"input": 10**5000, "output": 1}, "input price of 'm' is a value of type int", id="huge"),
            ({"input": 1, "output": float("inf")}, "inf"),
            ({"input": True, "output": 1}, "True"),
            ({"input": "one", "output": 1}, "'one'"),
            ({"input": None, "output": 1}, "None"),
            ({"input": 1}, "'output' is missing"),
            ({"input": 1, "output": 1, "images": 1}, "unknown key 'images'"),
            (1.5, "1.5"),
            ("cheap", "'cheap'"),
        ],
    )
    def test_bad_prices_say_what_is_wrong_and_what_to_do(self, price, says):
        prices = Prices()
        with pytest.raises(ValueError, match=r"give|use") as caught:
            prices.set("m", price)
        assert says in str(caught.value)
        assert prices.quote("openai", "m", at=NOW) is None

    def test_bad_names_and_circles(self):
        prices = Prices()
        prices.alias("a", "b")
        with pytest.raises(ValueError, match="back to itself"):
            prices.alias("b", "a")
        with pytest.raises(ValueError, match="back to itself"):
            prices.alias("c", "C")
        for bad in ("", "  ", None, 3):
            with pytest.raises(ValueError, match="give the name of a model"):
                prices.set(bad, "free")
        with pytest.raises(ValueError, match="at least 0"):
            per_1k(-1, 1)


class TestPassesOfOtherModels:
    def test_each_pass_is_priced_by_its_own_model(self):
        quote = PRICES.quote("anthropic", "claude-opus-4-5", at=NOW)
        haiku = PRICES.quote("anthropic", "claude-haiku-4-5", at=NOW)
        part = Usage(input=1_000, output=100)
        own = Usage(input=2_000, output=200)
        parts = (ModelUsage("claude-haiku-4-5", part), ModelUsage(None, part), ModelUsage("no-such-model", part))
        whole = Usage(input=2_000, output=200, also=parts)
        expected = quote.cost(own) + haiku.cost(part) + 2 * quote.cost(part)
        assert PRICES.cost(quote, whole, provider="anthropic", at=NOW) == expected
        assert PRICES.cost(quote, own, provider="anthropic", at=NOW) == quote.cost(own)


class TestAmounts:
    def test_limits_round_down_and_costs_up(self):
        assert (nanos("0.0000000019"), nanos("0.0000000011", up=True)) == (1, 2)
        assert (nanos(0.1), nanos(Decimal("1e-9")), nanos(2)) == (100_000_000, 1, 2_000_000_000)

    @settings(deadline=None)
    @given(st.integers(0, 10**30))
    def test_go_there_and_back(self, nano):
        assert nanos(usd(nano)) == nanos(usd(nano), up=True) == nano

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), "x", None, True, "1e999999999", "1e-999999999"])
    def test_must_be_numbers(self, bad):
        with pytest.raises(ValueError, match="finite"):
            nanos(bad)


class TestManners:
    def test_importing_loads_no_price_list(self):
        code = "import sys, shekel.pricing; assert not [m for m in sys.modules if m.startswith('genai_prices')]"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_the_cache_is_bounded(self):
        prices = Prices()
        for n in range(3_000):
            prices.quote("openai", f"unknown {n}", at=NOW)
        assert len(prices._cache) <= 1_024

    def test_threads_may_ask_and_set_at_once(self):
        prices, seen, stop = Prices(), [], threading.Event()

        def ask():
            while not stop.is_set():
                quote = prices.quote("openai", "gpt-4o", at=NOW)
                seen.append(quote.input_rate)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for rate in range(1, 200):
            prices.set("gpt-4o", {"input": rate, "output": 1})
            assert prices.quote("openai", "gpt-4o", at=NOW).input_rate == rate * 1_000
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) <= {2_500, *(rate * 1_000 for rate in range(1, 200))}

    def test_a_cost_is_far_cheaper_than_asking_the_list(self):
        usage = Usage(input=1_000, output=200, cache_read=300)
        quote = PRICES.quote("openai", "gpt-4o", at=NOW)

        def seconds(work, times):
            best = float("inf")
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(times):
                    work()
                best = min(best, (time.perf_counter() - start) / times)
            return best

        ours = seconds(lambda: quote.cost(usage), 2_000)
        theirs = seconds(lambda: calc_price(as_genai_usage(usage), "gpt-4o", provider_id="openai"), 100)
        assert ours * 10 < theirs


@settings(deadline=None)
@example(Usage(input=1, cache_read=1, input_image=1))
@given(any_usages)
def test_the_conversion_never_raises(usage):
    as_genai_usage(usage)
