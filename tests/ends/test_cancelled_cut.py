"""A task that is cancelled while the connection of a cut stream is being closed is cancelled, not refused."""

from __future__ import annotations

import asyncio

import openai
import pytest

from shekel import ShekelInstrumentor, budget
from shekel.call import open_calls
from shekel.testing import FakeProvider, Reply

ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


def test_it_is_no_refusal(provider: FakeProvider) -> None:
    provider.default = Reply(output_tokens=3_000)

    async def read() -> None:
        waits = asyncio.Event()

        async def closing() -> None:
            waits.set()
            await asyncio.sleep(60)

        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            with budget(max_usd=0.0003) as b:
                stream = await client.chat.completions.create(**ASKED, stream=True)  # type: ignore[call-overload]
                close, stream.response.aclose = stream.response.aclose, closing

                async def consume() -> None:
                    async for _ in stream:
                        pass

                task = asyncio.create_task(consume())
                await asyncio.wait_for(waits.wait(), 30)
                stream.response.aclose = close
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await close()
            assert b.held == 0

    ShekelInstrumentor().instrument()
    try:
        asyncio.run(read())
    finally:
        ShekelInstrumentor().uninstrument()
    assert open_calls == {}
