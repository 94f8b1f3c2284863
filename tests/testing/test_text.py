"""The stand-in's tokenizer, its texts, its schemas: deterministic, and never more tokens than bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.testing import Reply, count
from shekel.testing.schema import smallest
from shekel.testing.text import SCRIPTS, write
from shekel.testing.tokens import cut, pieces


class TestCount:
    @given(st.text())
    def test_never_exceeds_one_token_per_byte_and_loses_no_text(self, text: str) -> None:
        assert "".join(pieces(text)) == text
        assert count(text) <= len(text.encode("utf-8", "surrogatepass"))

    @given(st.text(min_size=1), st.integers(0, 40))
    def test_a_text_cut_in_the_middle_has_no_more_tokens_than_bytes(self, text: str, at: int) -> None:
        kept = cut(pieces(text), at)
        assert len(kept) == min(at, count(text))
        assert len(kept) <= len("".join(kept).encode("utf-8", "surrogatepass"))

    @pytest.mark.parametrize(
        ("text", "least", "most"),
        [
            ("The committee will publish its findings before the end of the month, as it has always done.", 3.5, 4.5),
            ("委员会将在月底之前公布调查结果，一如既往。", 2.0, 3.0),
            ("🎉🚀💰🌊🏦🍞🎈🧮", 4 / 3, 2.0),
            (
                json.dumps({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
                2.5,
                3.5,
            ),
        ],
        ids=["english", "chinese", "emoji", "schema"],
    )
    def test_bytes_per_token_are_those_of_real_tokenizers(self, text: str, least: float, most: float) -> None:
        assert least <= len(text.encode()) / count(text) <= most


class TestWrite:
    @pytest.mark.parametrize("script", SCRIPTS)
    @pytest.mark.parametrize("tokens", [0, 1, 2, 7, 500])
    def test_has_exactly_the_tokens_asked_for_and_repeats_itself(self, script: str, tokens: int) -> None:
        text = write(script, tokens, 7)
        assert len(text) == tokens
        assert text == write(script, tokens, 7)

    @pytest.mark.parametrize("script", ["english", "code"])
    def test_whoever_counts_again_counts_the_same(self, script: str) -> None:
        assert count("".join(write(script, 300, 3))) == 300

    def test_another_seed_says_something_else(self) -> None:
        assert write("english", 50, 1) != write("english", 50, 2)


class TestSmallest:
    def test_satisfies_the_models_that_helpers_send(self) -> None:
        from datetime import date
        from enum import Enum
        from uuid import UUID

        from pydantic import BaseModel, Field

        class Colour(Enum):
            RED = "red"

        class Leaf(BaseModel):
            name: str = Field(min_length=9)
            share: float = Field(gt=3)
            count: int = Field(le=-2)

        class Tree(BaseModel):
            leaves: list[Leaf] = Field(min_length=2)
            first: Leaf
            more: list[Tree]
            colour: Colour
            day: date
            id: UUID
            maybe: int | None
            parent: Tree | None
            yes: bool

        Tree.model_rebuild(_types_namespace={**locals(), "UUID": UUID, "date": date})
        tree = Tree.model_validate(smallest(Tree.model_json_schema()))
        assert len(tree.leaves) == 2
        assert tree.more == []
        assert tree.parent is None


class TestReply:
    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"script": "latin"}, "script='latin' is not one of"),
            ({"chunk_tokens": 0}, "chunk_tokens=0"),
            ({"pace": -1}, "pace=-1"),
            ({"cache_write_1h_tokens": 5}, "part of cache_write_tokens=0"),
            ({"drop_after": 1, "stall_after": 2}, "drop_after and stall_after"),
            ({"status": 302}, "status=302"),
            ({"status": 429, "bill_error": True}, "no meaning for status 429"),
            ({"bill_error": True}, "no meaning for status 200"),
        ],
    )
    def test_bad_input_is_one_clear_sentence(self, fields: dict[str, object], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Reply(**fields)  # type: ignore[arg-type]
