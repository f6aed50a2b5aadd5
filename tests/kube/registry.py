"""A real image registry of the bench's own: Debian's docker-registry, unpacked and never installed."""

from __future__ import annotations

import base64
import ctypes
import json
import re
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kube.certificates import KeyPair
from tests.kube.token_server import TokenServer
from tests.machine import MissingOnMachine
from tests.machine.addresses import free_port, own_loopback
from tests.machine.debs import environment_of, unpacked
from tests.machine.process import Server
from tests.machine.scratch import scratch_folder
from tests.machine.waiting import eventually


@dataclass(frozen=True)
class Login:
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ***)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Registry:
    """Runs between `start` and `close`. `host` is what image references begin with.

    login: who may pull and push; nobody else may. tokens: the registry sends clients to a token server for that, as the public ones do.
    tls: it speaks HTTPS with this pair; plain HTTP otherwise. A registry once stopped is started again with what it held.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        port: int | None = None,
        login: Login | None = None,
        tokens: bool = False,
        tls: KeyPair | None = None,
    ) -> None:
        self.address = address or own_loopback()
        self.port = port or free_port(self.address)
        self.host = f"{self.address}:{self.port}"
        self.login = login
        self.tls = tls
        self.folder = scratch_folder("registry")
        self.token_server = TokenServer(self.folder, self.address, login.basic if login else None) if tokens else None
        self._config = self.folder / "config.json"
        self._config.write_text(json.dumps(self._settings()))
        self._server: Server | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def start(self) -> Self:
        root = unpacked("docker-registry")
        command: list[str | Path] = [root / "usr/bin/docker-registry", "serve", self._config]
        self._server = server = Server(command, log=self.folder / "registry.log", env=environment_of(root))

        def answers() -> bool:
            assert server.running, f"the registry ended at once: {self.log()[-1500:]}"
            return accepts(self.address, self.port)

        eventually(f"the registry answers at {self.host}", answers)
        return self

    def stop(self) -> None:
        """Connections to it are refused from now on."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def pause(self) -> None:
        """It accepts connections and answers nothing."""
        assert self._server is not None
        self._server.pause()

    def resume(self) -> None:
        assert self._server is not None
        self._server.resume()

    def close(self) -> None:
        self.stop()
        if self.token_server is not None:
            self.token_server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "registry.log").read_text(errors="replace")

    def requests(self) -> list[str]:
        """What was asked of it so far, as "GET /v2/name/blobs/sha256:…", oldest first."""
        return re.findall(r'^\S+ - .*?"(\S+ \S+) HTTP/[\d.]+" \d', self.log(), re.MULTILINE)

    def _settings(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.host, "secret": secrets.token_hex(16)}
        if self.tls is not None:
            http["tls"] = {"certificate": str(self.tls.certificate), "key": str(self.tls.key)}
        storage = {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}}
        return {"version": "0.1", "log": {"level": "warn"}, "storage": storage, "http": http, **self._authentication()}

    def _authentication(self) -> dict[str, object]:
        if self.token_server is not None:
            return {"auth": {"token": self.token_server.registry_settings}}
        if self.login is not None:
            return {"auth": {"htpasswd": {"realm": "bench", "path": str(write_htpasswd(self.folder / "htpasswd", self.login))}}}
        return {}


def write_htpasswd(path: Path, login: Login) -> Path:
    """The registry takes bcrypt only, which libcrypt knows and Python's standard library does not."""
    try:
        libcrypt = ctypes.CDLL("libcrypt.so.1")
    except OSError as error:
        raise MissingOnMachine(f"no libcrypt to hash a registry's password with: {error}") from error
    libcrypt.crypt.restype = ctypes.c_char_p
    hashed = libcrypt.crypt(login.password.encode(), b"$2b$05$" + b"moorage.bench.salt....")
    if not hashed or not hashed.startswith(b"$2b$"):
        raise MissingOnMachine("this machine's libcrypt does not know bcrypt, which a registry's passwords are hashed with")
    path.write_text(f"{login.user}:{hashed.decode()}\n")
    return path


def accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True
