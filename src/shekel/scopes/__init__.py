"""Who pays, across blocks, functions, clients, web requests and services.

    values       what a scope entry may be
    scoped       a scope for each call of a function, from its arguments
    outside      entries that came in baggage: whether they count
    signature    how baggage says that one of us has written it, and until when
    keyring      the keys for that, and where they come from
    counts       what was dropped, by reason
    resolving    from a web request to its scope
    asgi, wsgi   the middleware

`shekel.budgets.scope` is the block itself. Nothing here knows budgets or SDKs.
"""
