"""Decoding of JSON from servers that cut text between the two surrogates of one character.

A server that counts in UTF-16 units writes an emoji as `\\ud83d` in one event and `\\ude00` in the
next. orjson rejects both, as RFC 8259 allows, although together they are a valid character.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

REPLACEMENT: Final = "\ufffd"

# An escaped surrogate, or one in UTF-8 (as CESU-8 has them).
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
_HIGH: Final = re.compile("[\ud800-\udbff]\\Z")


def loads(payload: bytes) -> Any:
    """Decode JSON that may hold lone surrogates; raises ValueError for anything else."""
    try:
        return orjson.loads(payload)
    except ValueError:
        if not _SURROGATE.search(payload):
            raise
    try:
        return json.loads(payload)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


class SurrogateDecoder:
    """Decoder for the events of one answer; no returned string contains a lone surrogate.

    A second half joins the first half if the same string of the next event begins with it. Any
    other half becomes U+FFFD.
    """

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves: dict[tuple[object, ...], str] = {}
        """The first halves at the end of strings, by the place of the string in its event."""

    def loads(self, payload: bytes) -> Any:
        """Decode the next event; raises ValueError."""
        try:
            return self._mend(loads(payload), ())
        except RecursionError:
            raise ValueError("JSON that is nested too deeply") from None

    def flush(self, *place: object) -> str:
        """Return U+FFFD if the string at this place ended with a first half, else nothing."""
        return REPLACEMENT if self._halves.pop(place, "") else ""

    def _mend(self, value: Any, place: tuple[object, ...]) -> Any:
        if isinstance(value, str):
            return self._mend_text(value, place)
        if isinstance(value, dict):
            return {whole(key): self._mend(each, (*place, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._mend(each, (*place, index)) for index, each in enumerate(value)]
        return value

    def _mend_text(self, text: str, place: tuple[object, ...]) -> str:
        if not text:
            return text
        text = self._halves.pop(place, "") + text
        # Only the text of an answer continues in the next event; every other string is complete.
        if "delta" in place and _HIGH.search(text):
            self._halves[place] = text[-1]
            text = text[:-1]
        return whole(text)


def whole(text: str) -> str:
    """Join the surrogates of each pair, and replace every other one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
