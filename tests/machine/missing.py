"""The one reason why a part of the bench may not run here."""

from __future__ import annotations


class MissingOnMachine(Exception):
    """This machine lacks something the bench cannot bring along; the text says what, and a test that needs it is skipped with it."""
