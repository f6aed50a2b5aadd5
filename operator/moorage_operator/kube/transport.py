"""One request to the API server: its identity, its time-out, its patience, and foreign exceptions turned into ours. Knows no verbs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from moorage_operator.errors import ApiUnavailable, NotLeader
from moorage_operator.kube.answer import error_of, retry_after_s
from moorage_operator.kube.clock import Clock
from moorage_operator.kube.credentials import Credentials
from moorage_operator.kube.resource import Resource

JSON = "application/json"
PATIENCE = 3
"""How often a request the server put off (429, or 503 with Retry-After) is sent again before its caller hears of it."""

CONNECT_S = 10.0


@dataclass(frozen=True)
class Request:
    """`of` names the object in messages; `verb` and `resource` name the call in metrics."""

    verb: str
    method: str
    resource: Resource
    path: str
    of: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    content: str = JSON
    accept: str = JSON

    def describe(self) -> str:
        return f"{self.verb} {self.resource} {self.of}".rstrip()


class Call(NamedTuple):
    """One request as metrics see it; `status` 0 when no answer came."""

    verb: str
    resource: str
    status: int
    seconds: float


class Transport:
    def __init__(self, credentials: Credentials, *, clock: Clock, timeout_s: float, observe: Callable[[Call], object] | None) -> None:
        self._credentials = credentials
        self._clock = clock
        self._timeout_s = timeout_s
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, request: Request, *, allowed: Callable[[], bool] | None = None) -> Any:
        """The parsed answer. What the server puts off is sent again when it says so; `allowed` is asked before each sending."""
        data = None if request.body is None else orjson.dumps(request.body)
        url = self._url(request)
        for tries_left in range(PATIENCE, -1, -1):
            if allowed is not None and not allowed():
                raise NotLeader(f"cannot {request.describe()}: this process does not hold the Lease")
            answer = await self._exchange(request, url, data)
            if answer.status < 400:
                return _parsed(request, answer.body)
            if not (tries_left and await self._worth_another_try(answer)):
                break
        raise error_of(request.describe(), answer.status, answer.headers, answer.body)

    async def lines(self, request: Request, *, inactivity_s: float) -> AsyncGenerator[bytes]:
        """The answer line by line as it comes; ends when the server ends it, or after a silence of `inactivity_s`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=inactivity_s)
        answered = False
        try:
            async with self._open().request(
                request.method, self._url(request), **await self._options(request), timeout=timeout
            ) as response:
                if response.status >= 400:
                    if response.status == 401:
                        await self._credentials.identity.authorization(refused=True)
                    raise error_of(request.describe(), response.status, response.headers, await response.read())
                answered = True
                async for line in _lines(response.content):
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not (answered and isinstance(error, aiohttp.SocketTimeoutError)):
                raise _unavailable(request, error, "no answer") from error

    async def _worth_another_try(self, answer: _Answer) -> bool:
        if answer.status == 401:
            return await self._credentials.identity.authorization(refused=True) != answer.authorization
        wait_s = retry_after_s(answer.status, answer.headers)
        if wait_s is None:
            return False
        await self._clock.sleep(wait_s)
        return True

    async def _exchange(self, request: Request, url: URL, data: bytes | None) -> _Answer:
        try:
            return await self._once(request, url, data)
        except aiohttp.ClientConnectorError as error:
            raise _unavailable(request, error) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
            # A server that goes away closes its idle connections, often just as one is used again: the next is a new one.
            return await self._last(request, url, data)
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(request, error) from error

    async def _last(self, request: Request, url: URL, data: bytes | None) -> _Answer:
        try:
            return await self._once(request, url, data)
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(request, error) from error

    async def _once(self, request: Request, url: URL, data: bytes | None) -> _Answer:
        started, status = self._clock.monotonic(), 0
        options = await self._options(request)
        try:
            async with asyncio.timeout(self._timeout_s), self._open().request(request.method, url, data=data, **options) as response:
                body = await response.read()
                status = response.status
                return _Answer(status, response.headers, body, options["headers"].get("Authorization"))
        except TimeoutError as error:
            raise _unavailable(request, error, f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise _unavailable(request, error) from error
        finally:
            if self._observe is not None:
                self._observe(Call(request.verb, request.resource.plural, status, self._clock.monotonic() - started))

    async def _options(self, request: Request) -> dict[str, Any]:
        headers = {"Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = request.content
        authorization = await self._credentials.identity.authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        return {"headers": headers, "server_hostname": self._credentials.tls_server_name}

    def _open(self) -> aiohttp.ClientSession:
        # Made on first use: a session belongs to the running loop, and a KubeApi may be built before there is one.
        if self._session is None:
            self._session = self._credentials.bare_session()
        return self._session

    def _url(self, request: Request) -> URL:
        query = f"?{urlencode(request.query)}" if request.query else ""
        return URL(f"{self._credentials.server}{request.path}{query}", encoded=True)


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    authorization: str | None


def _parsed(request: Request, body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Not the API server: something in between that answers 200 to everything.
        raise ApiUnavailable(f"cannot {request.describe()}: the answer is not JSON: {body[:80].decode(errors='replace')}") from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # Not `async for line in stream`: that refuses lines longer than its buffer, and objects are up to 1.5 MB.
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _unavailable(request: Request, error: BaseException, on_timeout: str = "") -> ApiUnavailable:
    # aiohttp's time-outs of connecting and reading are TimeoutErrors too, mostly without a word.
    what = on_timeout if isinstance(error, TimeoutError) and on_timeout else str(error) or type(error).__name__
    return ApiUnavailable(f"cannot {request.describe()}: {what}")
