"""Tokens of texts that nobody counted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.estimation import EXPECTED_OUTPUT, INPUT_PRIOR, OUTPUT_PRIOR, Estimator, Rates, Text, measure

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates included
texts = st.builds(Text, *[st.integers(0, 10**6)] * 4)
PROSE = measure("The quick brown fox jumps over the lazy dog. " * 10)
CHINESE = measure("敏捷的棕色狐狸跳过了懒狗。" * 20)


class TestText:
    @given(any_text)
    def test_counts_the_bytes_of_the_encoded_text(self, text: str) -> None:
        measured = measure(text)
        assert measured.bytes == len(text.encode("utf-8", "surrogatepass"))
        for width, count in enumerate((measured.one, measured.two, measured.three, measured.four), start=1):
            assert count == sum(width for c in text if len(c.encode("utf-8", "surrogatepass")) == width)

    @given(any_text, any_text)
    def test_the_parts_measure_what_the_whole_measures(self, a: str, b: str) -> None:
        assert measure(a) + measure(b) == measure(a + b)

    def test_names_the_script_that_most_bytes_belong_to(self) -> None:
        assert [measure(t).script for t in ("", "abc", "Привет, x", "你好 abc", "😀😀 a")] == [1, 1, 2, 3, 4]


class TestRates:
    @given(texts, texts)
    def test_are_linear(self, a: Text, b: Text) -> None:
        rates = Rates(250, 300, 350, 700)
        assert rates.units(a) + rates.units(b) == rates.units(a + b)

    def test_a_model_that_nobody_called_has_the_priors(self) -> None:
        assert Estimator().rates("m") == OUTPUT_PRIOR


class TestInput:
    def test_starts_from_the_prior_of_the_script(self) -> None:
        assert Estimator().input_tokens("m", PROSE) == -(-PROSE.bytes * INPUT_PRIOR.one // 1000)
        assert Estimator().input_tokens("m", Text()) == 0

    def test_is_the_95th_percentile_of_what_the_model_took(self) -> None:
        estimator = Estimator()
        for tokens in range(101, 121):  # twenty calls: the 19th is the 95th percentile
            estimator.observe_input("m", PROSE, tokens)
        assert estimator.input_tokens("m", PROSE) == 119

    def test_few_calls_raise_the_estimate_and_never_lower_it(self) -> None:
        estimator = Estimator()
        prior = estimator.input_tokens("m", PROSE)
        for _ in range(7):
            estimator.observe_input("m", PROSE, prior // 2)
        assert estimator.input_tokens("m", PROSE) == prior
        estimator.observe_input("m", PROSE, 2 * prior)
        assert estimator.input_tokens("m", PROSE) == 2 * prior

    def test_scripts_and_models_are_learnt_apart(self) -> None:
        estimator = Estimator()
        before = estimator.input_tokens("m", CHINESE)
        for _ in range(10):
            estimator.observe_input("m", PROSE, 300)
        assert estimator.input_tokens("m", CHINESE) == before
        assert estimator.input_tokens("other", PROSE) == Estimator().input_tokens("m", PROSE)

    def test_a_count_that_the_text_does_not_explain_is_ignored(self) -> None:
        estimator = Estimator()
        before = estimator.input_tokens("m", PROSE)
        for tokens in (0, -5, 10**6):
            estimator.observe_input("m", PROSE, tokens)
        estimator.observe_input("m", measure("hi"), 9)
        assert estimator.input_tokens("m", PROSE) == before

    @given(st.lists(st.tuples(texts, st.integers(-10, 10**7)), max_size=80), texts)
    def test_is_never_negative_and_never_fails(self, seen: list[tuple[Text, int]], text: Text) -> None:
        estimator = Estimator()
        for observed, tokens in seen:
            estimator.observe_input("m", observed, tokens)
            estimator.observe_output("m", observed, output=tokens, reasoning=tokens // 2)
        assert estimator.input_tokens("m", text) >= 0
        assert estimator.output_tokens("m", text) >= (text.bytes > 0)
        assert estimator.expected_output("m") > 0


class TestOutput:
    def test_comes_near_what_the_model_takes(self) -> None:
        estimator = Estimator()
        for _ in range(64):
            estimator.observe_output("m", PROSE, output=200)
        assert estimator.output_tokens("m", PROSE) == pytest.approx(200, rel=0.02)
        assert estimator.rates("m").two == OUTPUT_PRIOR.two

    def test_reasoning_is_no_visible_output(self) -> None:
        estimator = Estimator()
        for _ in range(64):
            estimator.observe_output("m", PROSE, output=5_000, reasoning=4_900)
        assert estimator.output_tokens("m", PROSE) == pytest.approx(100, rel=0.05)
        assert estimator.expected_output("m") == 5_000

    def test_expected_is_the_95th_percentile_per_choice_of_the_last_64_calls(self) -> None:
        estimator = Estimator()
        for _ in range(7):
            estimator.observe_output("m", PROSE, output=100, choices=2)
        assert estimator.expected_output("m") == EXPECTED_OUTPUT == 1024
        estimator.observe_output("m", PROSE, output=100, choices=2)
        assert estimator.expected_output("m") == 50
        for tokens in range(1, 65):
            estimator.observe_output("m", PROSE, output=tokens)
        assert estimator.expected_output("m") == 61


class TestBounds:
    def test_the_oldest_models_are_dropped(self) -> None:
        estimator = Estimator()
        for n in range(400):
            for _ in range(8):
                estimator.observe_output(f"m{n}", PROSE, output=10)
        assert estimator.expected_output("m399") == 10
        assert estimator.expected_output("m143") == EXPECTED_OUTPUT
        assert estimator.expected_output("m144") == 10

    def test_threads_may_learn_and_ask_at_once(self) -> None:
        estimator = Estimator()
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for n in range(2_000):
                    model = f"m{(n * seed) % 300}"
                    estimator.observe_input(model, PROSE, 100 + n % 20)
                    estimator.observe_output(model, PROSE, output=90 + n % 20)
                    assert estimator.input_tokens(model, PROSE) > 0
                    assert estimator.rates(model).one > 0
                    assert estimator.expected_output(model) > 0
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
