"""The SDK's clients as a program makes them, but with one set of certificates for all: to load them takes longer than
a call does here, and nobody here speaks TLS."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import openai


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


def sync_client(url: str, *, retries: int = 0, **options: Any) -> openai.OpenAI:
    """A client of the stand-in at that address."""
    http = openai.DefaultHttpxClient(verify=_certificates())
    return openai.OpenAI(base_url=url, api_key="test", max_retries=retries, http_client=http, **options)


def async_client(url: str, *, retries: int = 0, **options: Any) -> openai.AsyncOpenAI:
    """An async one."""
    http = openai.DefaultAsyncHttpxClient(verify=_certificates())
    return openai.AsyncOpenAI(base_url=url, api_key="test", max_retries=retries, http_client=http, **options)
