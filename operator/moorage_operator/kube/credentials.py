"""Where the API server is and how to be let in, as one value."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import aiohttp

from moorage_operator.kube.identity import Fixed, Identity


@dataclass(frozen=True)
class Credentials:
    """`tls` is None for plain http. `namespace` is the kubeconfig context's, or the Pod's own."""

    server: str
    identity: Identity = field(default=Fixed(None), repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    proxy: str | None = None
    namespace: str = "default"

    def session(self) -> aiohttp.ClientSession:
        """A session that is let in by itself: given to kopf, it shares our rotation of tokens and keeps no key in a file."""

        async def authorize(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            header = await self.identity.authorization()
            if header is not None:
                request.headers["Authorization"] = header
            response = await handler(request)
            if response.status == 401:
                await self.identity.authorization(refused=True)
            return response

        return self.bare_session(middlewares=(authorize,))

    def bare_session(self, *, middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()) -> aiohttp.ClientSession:
        """A session without identity: the caller adds the header. Has no limit of connections and no time-outs of its own."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.tls or True, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            # The API server would gzip every list, which costs both sides more CPU than a data centre's network costs time.
            headers={"User-Agent": "moorage-operator", "Accept-Encoding": "identity"},
            proxy=self.proxy,
            middlewares=middlewares,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
