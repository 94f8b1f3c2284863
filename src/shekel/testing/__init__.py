"""What you need to test your own budgets: a stand-in provider with a bill of its own, and a clock that obeys.

    from shekel.testing import FakeProvider, Reply

    with FakeProvider(output_tokens=200) as provider:
        client = openai.OpenAI(base_url=provider.openai_url, api_key="test")
        provider.reply(Reply(status=500), Reply(text="Hello."))
        ...
        provider.wait_idle()
        print(provider.bill.usd)

No key, no network beyond loopback. It never imports the SDKs, nor any other part of Shekel.
"""

from .bill import Attempt, Bill, Outcome
from .clock import Clock
from .provider import FakeProvider
from .reply import Reply, RequestSeen, ToolCall
from .tokens import count

__all__ = ["Attempt", "Bill", "Clock", "FakeProvider", "Outcome", "Reply", "RequestSeen", "ToolCall", "count"]
