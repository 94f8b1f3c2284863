"""The door of the openai and anthropic SDKs, which are generated alike: the wrappers around their private client.

Four seams of each `_base_client` client class, sync and async:

    request              the one way in: above the retry loop, below every resource method
    _build_request       every attempt passes: the safety net for requests that came around `request`
    _process_response    where a raw answer is at hand, before somebody else's span ends
    _sleep_for_retry     between attempts: why the former one failed

one for those requests alone (`_make_status_error_from_response`, where the last attempt is refused), and the loop over
a stream, where ours may take the place of the SDK's (see `loops`).

The result is taken where the SDK parses (`options.post_parser`), the stream at `_iterator` and at the response's close.
The SDK's own object is returned, always. Nothing here decides about money: that is the gate's.
"""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

from .. import faults
from ..providers import find_endpoint
from . import errors, loops, request_body
from .answers import ResultHook, passage_of
from .hiding import passing
from .passage import Passage
from .seams import CLIENTS, LOOPS, Live, Sdk, Seams, definer, is_of_others, overriding

if TYPE_CHECKING:
    from ..runtime import Runtime


class Door:
    """The wrappers around one SDK. `install` and `remove` may be repeated.

    A wrapper that could not be taken off, because somebody else's lies over it, is a pass-through for good.

    Args:
        sdk: which.
        runtime: the parts that a call needs.
    """

    def __init__(self, sdk: Sdk, runtime: Runtime) -> None:
        self.sdk = sdk
        self.runtime = runtime
        self._client: Any = None
        """The first client class of the module that was wrapped last: an SDK may be imported once more."""
        self._seams = Seams()
        self._overriding = Seams()
        self._around: weakref.WeakKeyDictionary[Any, weakref.ref[ResultHook]] = weakref.WeakKeyDictionary()
        """The HTTP requests of calls that came around `request`, and what ties each to its call."""

    @property
    def is_in_place(self) -> bool:
        """Whether calls of the SDK pass here."""
        return self._seams.in_place

    def install(self, module: Any) -> bool:
        """Wrap the seams of an imported `_base_client`. Returns whether they are there.

        Where they are wrapped, put back what somebody took off since. Where a seam is missing or the version is not
        supported, one warning names version and consequence, and the SDK is left as it is.
        """
        client = getattr(module, CLIENTS[0][0], None)
        if client is not self._client:
            problem = self.sdk.problem(module)
            if problem is not None:
                faults.warn_once(
                    f"unsupported {self.sdk.name}",
                    "Shekel does not support this version of %s (%s): its calls are neither metered nor limited.",
                    self.sdk.name,
                    problem,
                )
                return False
            self._wrap(module)
            self._wrap_overriding(module)
            self._client = client
        elif self._seams.in_place:
            self._seams.keep()
            self._overriding.keep()
        else:
            self._seams.keep()
            self._wrap_overriding(module)
        return True

    def remove(self) -> None:
        """Undo `install` where ours is outermost; elsewhere ours stays as a pass-through."""
        self._overriding.remove()
        self._overriding = Seams()  # it would keep the program's classes
        self._seams.remove()

    def _wrap(self, module: Any) -> None:
        place = self._seams.place
        for name, is_async in CLIENTS:
            owner = getattr(module, name)
            place(owner, "request", self._async_request if is_async else self._sync_request)
            place(owner, "_process_response", self._async_process if is_async else self._sync_process)
            if callable(getattr(owner, "_sleep_for_retry", None)):
                place(owner, "_sleep_for_retry", self._async_sleep if is_async else self._sync_sleep)
            # Sync and async clients share these.
            place(definer(owner, "_build_request"), "_build_request", self._build)
            if callable(getattr(owner, "_make_status_error_from_response", None)):
                refusing = definer(owner, "_make_status_error_from_response")
                place(refusing, "_make_status_error_from_response", self._status_error)
        for name, seam in LOOPS:
            owner = getattr(module, name, None)
            if isinstance(owner, type) and seam in owner.__dict__:
                place(owner, seam, loops.instead_of)

    def _wrap_overriding(self, module: Any) -> None:
        """Somebody may have put a `request` of its own on a subclass, which carries calls past the base's."""
        for name, is_async in CLIENTS:
            for subclass in overriding(getattr(module, name), "request"):
                self._overriding.place(subclass, "request", self._async_request if is_async else self._sync_request)

    # The way in

    def _open(self, client: Any, options: Any, stream: bool, *, over: bool = False) -> Passage | None:
        """A passage for a billable request that has none yet. Never raises; a refusal is in the passage's call."""
        try:
            endpoint = find_endpoint(self.sdk.name, options.method, options.url)
            if endpoint is None or isinstance(options.post_parser, ResultHook):
                return None
            return Passage(self.runtime, endpoint, client, options, stream, over=over)
        except Exception as error:
            faults.report("read a request", error)
            return None

    def _sync_request(self, former: Any, live: Live) -> Any:
        over = is_of_others(former)

        @functools.wraps(former)
        def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            if not live.on:
                return former(client, cast_to, options, *args, **kwargs)
            passage = self._open(client, options, bool(kwargs.get("stream")), over=over)
            if passage is None:
                with passing(self.runtime):
                    return former(client, cast_to, options, *args, **kwargs)
            if budgets := passage.patient():
                try:
                    passage.wait(budgets)
                except BaseException:
                    passage.given_up()
                    raise
            passage.admit()
            passage.attach()
            try:
                result = former(client, cast_to, passage.options, *args, **kwargs)
            except BaseException as error:
                passage.failed(error)
                raise
            finally:
                passage.detach()
            passage.returned(result)
            return result

        return request

    def _async_request(self, former: Any, live: Live) -> Any:
        over = is_of_others(former)

        @functools.wraps(former)
        async def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            if not live.on:
                return await former(client, cast_to, options, *args, **kwargs)
            passage = self._open(client, options, bool(kwargs.get("stream")), over=over)
            if passage is None:
                with passing(self.runtime):
                    return await former(client, cast_to, options, *args, **kwargs)
            if budgets := passage.patient():
                try:
                    await passage.await_room(budgets)
                except BaseException:
                    passage.given_up()
                    raise
            passage.admit()
            passage.attach()
            try:
                result = await former(client, cast_to, passage.options, *args, **kwargs)
            except BaseException as error:
                passage.failed(error)
                raise
            finally:
                passage.detach()
            passage.returned(result)
            return result

        return request

    # What happens inside

    def _build(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        def _build_request(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            if not live.on:
                return former(client, options, *args, **kwargs)
            passage = passage_of(options)
            if passage is None:
                passage = self._net(client, options)
            built = former(client, options, *args, **kwargs)
            if passage is not None:
                passage.building()
                if passage.came_around:
                    self._know_again(built, options)
            return built

        return _build_request

    def _net(self, client: Any, options: Any) -> Passage | None:
        """Admit a billable request that came around `request`, on the options of this very attempt."""
        passage = self._open(client, options, _asks_for_stream(options))
        if passage is None:
            return None
        passage.admit()
        passage.take_over(options)
        return passage

    def _know_again(self, request: Any, options: Any) -> None:
        try:
            self._around[request] = weakref.ref(options.post_parser)
        except Exception as error:
            faults.report("knew a request again", error)

    def _hook_around(self, known: Any) -> ResultHook | None:
        """What ties a response, or an error, to its call, if that came around `request`."""
        hook = self._around.get(known.request) if self._around and hasattr(known, "request") else None
        return None if hook is None else hook()

    def _status_error(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        def _make_status_error_from_response(client: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
            error = former(client, response, *args, **kwargs)
            if live.on:
                try:
                    hook = self._hook_around(response)
                    if hook is not None:
                        hook.passage.failed(error)
                except Exception as fault:
                    faults.report("saw a refusal", fault)
            return error

        return _make_status_error_from_response

    def _sync_process(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        def _process_response(client: Any, *args: Any, **kwargs: Any) -> Any:
            passage, response = passage_of(kwargs.get("options")), kwargs.get("response")
            if passage is None or passage.response is response or not live.on:
                return former(client, *args, **kwargs)
            passage.responding(response, is_async=False)
            try:
                result = former(client, *args, **kwargs)
            finally:
                passage.response = None
            passage.responded(response, result)
            return result

        return _process_response

    def _async_process(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        async def _process_response(client: Any, *args: Any, **kwargs: Any) -> Any:
            passage, response = passage_of(kwargs.get("options")), kwargs.get("response")
            if passage is None or passage.response is response or not live.on:
                return await former(client, *args, **kwargs)
            passage.responding(response, is_async=True)
            try:
                result = await former(client, *args, **kwargs)
            finally:
                passage.response = None
            passage.responded(response, result)
            return result

        return _process_response

    def _sync_sleep(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        def _sleep_for_retry(client: Any, *args: Any, **kwargs: Any) -> Any:
            if live.on:
                self._retrying(kwargs)
            return former(client, *args, **kwargs)

        return _sleep_for_retry

    def _async_sleep(self, former: Any, live: Live) -> Any:

        @functools.wraps(former)
        async def _sleep_for_retry(client: Any, *args: Any, **kwargs: Any) -> Any:
            if live.on:
                self._retrying(kwargs)
            return await former(client, *args, **kwargs)

        return _sleep_for_retry

    def _retrying(self, arguments: dict[str, Any]) -> None:
        try:
            options, response = arguments.get("options"), arguments.get("response")
            passage = passage_of(options)
            if passage is None:
                hook = self._hook_around(sys.exception() if response is None else response)
                if hook is None:
                    return
                passage = hook.passage
                passage.take_over(options, hook)
            status = getattr(response, "status_code", None)
            if isinstance(status, int):
                failure = errors.of_status(status, str(status))
            else:
                # The SDK sleeps inside its `except` block, so the error is the one being handled.
                _, failure = errors.of(sys.exception() or ConnectionError(), sent=True)
            passage.retrying(failure)
        except Exception as error:
            faults.report("saw a retry", error)


def _asks_for_stream(options: Any) -> bool:
    for body in (options.extra_json, options.json_data):
        if isinstance(body, dict) and body.get("stream") is True:
            return True
    return options.json_data is None and request_body.read(options).fields.get("stream") is True
