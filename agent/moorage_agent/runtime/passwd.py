"""Who a container runs as, read from its own passwd and group files with a parser of ours: the C library's would load the image's code.

Pure: text in, numbers out. What an image holds is not to be trusted: lines that make no sense are skipped.
"""

from __future__ import annotations


class NoSuchUser(ValueError):
    """The image knows no user or group of this name."""


def resolve(user: bytes, extra: list[bytes], passwd: bytes, group: bytes) -> tuple[int, int, list[int], bytes]:
    """(uid, gid, supplementary groups, home) of `user`: b"", name, uid, name:group or uid:gid. Raises NoSuchUser.

    As with Docker, an unknown number is taken as it is, with group 0; naming a group leaves the user's other groups out.
    """
    name, _, group_name = user.partition(b":")
    name = name or b"0"
    entry = _user(name, passwd)
    if entry is None and not name.isdigit():
        raise NoSuchUser(f"no user {name.decode(errors='replace')!r} in the image's /etc/passwd")
    uid = entry[1] if entry else _number(name)
    gid = _group(group_name, group) if group_name else (entry[2] if entry else 0)
    groups = [] if group_name or entry is None else _memberships(entry[0], group)
    groups += [_group(text, group) for text in extra]
    return uid, gid, sorted(set(groups) - {gid}), (entry[3] if entry else b"") or b"/"


def _user(name: bytes, passwd: bytes) -> tuple[bytes, int, int, bytes] | None:
    number = _number(name) if name.isdigit() else None
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) < 7 or not fields[2].isdigit() or not fields[3].isdigit():
            continue
        if fields[0] == name if number is None else len(fields[2]) <= 10 and int(fields[2]) == number:
            return fields[0], _number(fields[2]), _number(fields[3]), fields[5] if fields[5].startswith(b"/") else b"/"
    return None


def _group(name: bytes, group: bytes) -> int:
    if name.isdigit():
        return _number(name)
    for line in group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            return _number(fields[2])
    raise NoSuchUser(f"no group {name.decode(errors='replace')!r} in the image's /etc/group")


def _memberships(user: bytes, group: bytes) -> list[int]:
    found = []
    for line in group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4 and fields[2].isdigit() and user in fields[3].split(b","):
            found.append(_number(fields[2]))
    return found


def _number(text: bytes) -> int:
    """Ids are u32, and 4294967295 means "no change" to the kernel."""
    number = int(text) if len(text) <= 10 else 1 << 32
    if number >= 0xFFFFFFFF:
        raise NoSuchUser(f"user or group id {text[:20].decode()} is not below 4294967295")
    return number
