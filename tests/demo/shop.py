"""The images that examples/shop.yaml names, made on the spot from BusyBox, in a registry of that name."""

from __future__ import annotations

from pathlib import Path

from tests.kube import Registry, busybox, make_layer, push
from tests.kube.certificates import Authority
from tests.kube.images import program

NAME = "registry.example"

WEB = """#!/bin/sh
# web --config FILE: serves one page, and /healthz.
greeting=$(sed -n 's/^greeting = //p' "$2")
mkdir -p /www && echo "$greeting from $INSTANCE" > /www/index.html && echo ok > /www/healthz
echo "web: $greeting, listening on 8080"
exec httpd -f -p 8080 -h /www
"""
WORKER = """#!/bin/sh
# Works for ever, with a token that must not be shown.
test -s /run/secrets/payment-token || { echo 'worker: no token'; exit 1; }
echo "worker: token of $(wc -c < /run/secrets/payment-token) bytes, uid $(id -u)"
trap 'echo "worker: done"; exit 0' TERM
n=0; while true; do n=$((n+1)); echo "worker: order $n"; sleep 5 & wait $!; done
"""
METRICS = """#!/bin/sh
trap 'exit 0' TERM
while true; do cat /proc/loadavg; sleep 10 & wait $!; done
"""


def shop_registry(address: str, folder: Path) -> tuple[Registry, dict[str, str]]:
    """The registry, and the files by which a host finds and trusts it: path here → path there."""
    authority = Authority(folder, "registry-ca")
    registry = Registry(address=address, port=443, tls=authority.issue(NAME, names=(NAME, address))).start()
    for name, text in (("web:1.4", WEB), ("worker:1.4", WORKER), ("metrics:0.9", METRICS)):
        script = f"/bin/{name.partition(':')[0]}"
        layer = make_layer({script.lstrip("/"): program(text)})
        push(registry, f"shop/{name}", busybox(layer, config={"Entrypoint": [script]}))
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")
    return registry, {str(hosts): "/etc/hosts", str(authority.certificate): "/etc/ssl/certs/ca-certificates.crt"}
