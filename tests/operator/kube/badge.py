"""Credentials that may be out of order for a while: a plugin that fails, a token file that is gone."""

from __future__ import annotations

from moorage_operator.errors import CredentialsError


class Badge:
    """An identity that is out of order while `broken`."""

    def __init__(self) -> None:
        self.broken = False

    async def authorization(self, *, refused: bool = False) -> str | None:
        if self.broken:
            raise CredentialsError("cannot read the service account token: No such file or directory")
        return None
