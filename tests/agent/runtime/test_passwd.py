"""Users and groups as an image has them."""

from __future__ import annotations

import pytest
from moorage_agent.runtime.passwd import NoSuchUser, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
web:x:1000:1001::/home/web:/bin/sh
7:x:70:71::/seven:/bin/sh
broken
bad:x:a:b:c:d:e
rel:x:8:8::home:/x
"""
GROUP = b"root:x:0:\nweb:x:1001:\nlog:x:44:web,other\nwide:x:45:other,web\nbroken\nbad:x:x:web\n"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        (b"", [], (0, 0, [], b"/root")),
        (b"root", [], (0, 0, [], b"/root")),
        (b"web", [], (1000, 1001, [44, 45], b"/home/web")),
        (b"1000", [], (1000, 1001, [44, 45], b"/home/web")),
        (b"web:log", [], (1000, 44, [], b"/home/web")),
        (b"web:5", [b"log", b"6"], (1000, 5, [6, 44], b"/home/web")),
        (b"4242", [], (4242, 0, [], b"/")),
        (b"4242:4343", [b"4343"], (4242, 4343, [], b"/")),
        (b":44", [], (0, 44, [], b"/root")),
        (b"rel", [], (8, 8, [], b"/")),
    ],
)
def test_resolve(user: bytes, extra: list[bytes], expected: tuple[int, int, list[int], bytes]) -> None:
    assert resolve(user, extra, PASSWD, GROUP) == expected


@pytest.mark.parametrize("user", [b"nobody", b"bad", b"web:nogroup", b"web:bad", b"4294967295", b"99999999999999999999", b"0:4294967295"])
def test_who_is_not_there_is_an_error(user: bytes) -> None:
    with pytest.raises(NoSuchUser):
        resolve(user, [], PASSWD, GROUP)


def test_an_image_without_files_has_root() -> None:
    assert resolve(b"", [], b"", b"") == (0, 0, [], b"/")
