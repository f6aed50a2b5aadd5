"""Which proxy a request goes through, as curl and most else read the environment. Pure."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit


def proxy_for(scheme: str, host: str, environ: Mapping[str, str]) -> SplitResult | None:
    """From {http,https,all}_proxy, in either case, unless no_proxy names the host. HTTP_PROXY in capitals counts: no CGI runs here."""
    said = {name.lower(): value.strip() for name, value in environ.items() if name.lower().endswith("_proxy") and value.strip()}
    address = said.get(f"{scheme}_proxy") or said.get("all_proxy")
    if address is None or bypassed(host, said.get("no_proxy", "")):
        return None
    return urlsplit(address if "//" in address else f"//{address}")


def bypassed(host: str, no_proxy: str) -> bool:
    """`no_proxy`: names (with all below them), addresses, networks, or *, separated by commas."""
    return any(_covers(item.strip().lower(), host.lower()) for item in no_proxy.split(","))


def _covers(item: str, host: str) -> bool:
    name = item.split(":")[0].lstrip("*").lstrip(".") if item.count(":") < 2 else item
    if item == "*" or (name and (host == name or host.endswith(f".{name}"))):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(item, strict=False)
    except ValueError:
        return False


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
