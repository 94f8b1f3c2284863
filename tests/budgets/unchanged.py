"""A program that knows nothing of Shekel: it asks a model until somebody stops it. Run by `test_everywhere.py`."""

from __future__ import annotations

import sys

import openai

client = openai.OpenAI(max_retries=0)
for number in range(int(sys.argv[1])):
    client.chat.completions.create(
        model=sys.argv[2], messages=[{"role": "user", "content": "Hello there, how are you today?"}], max_tokens=64
    )
    print("answer", number, flush=True)
