"""A chat view in Flask that streams server-sent events, with a limit for each user.

    pip install opentelemetry-instrumentation-shekel openai flask
    flask --app flask_sse run

    curl -N -H "X-User: alice" "http://127.0.0.1:5000/chat?prompt=Hello"

A WSGI server reads the answer after the view has returned: the middleware keeps the scope for every step of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
from flask import Flask, Response, request

import shekel
from shekel.scopes.resolving import Incoming

shekel.ShekelInstrumentor().instrument()
shekel.configure(policies=[shekel.per("user.id", "$0.50/day", name="chat")])

NOBODY = {"user_id": "nobody"}
"""Who pays where nobody is known: without a user, no policy would."""


def who(incoming: Incoming) -> dict[str, str]:
    """Who pays for a request. Ask your session or token here: a header that anybody can send proves nothing."""
    user = incoming.headers.get("x-user")
    return {"user_id": user} if user else NOBODY


app = Flask(__name__)
app.wsgi_app = shekel.WsgiScopeMiddleware(app.wsgi_app, resolver=who, otherwise=NOBODY)  # type: ignore[method-assign]
client = openai.OpenAI()


@app.get("/chat")
def chat() -> Response:
    """The answer, event by event."""
    return Response(answer(request.args["prompt"]), mimetype="text/event-stream")


def answer(prompt: str) -> Iterator[str]:
    """Events: `text` for each piece, then `done`; or `limit`, with a sentence for the user."""
    try:
        with client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}], stream=True
        ) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield event("text", chunk.choices[0].delta.content)
        yield event("done", "")
    except shekel.BudgetExceededError as error:
        yield event("limit", error.public_message)


def event(name: str, data: str) -> str:
    """One server-sent event. JSON keeps line breaks out of it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
