"""The numbered log of one stream: every frame it ever sent, compact enough to keep.

A token costs its UTF-8 bytes and four bytes more, whatever its length; the few other frames are
kept as they were sent. Reading encodes tokens anew, into the same bytes they had when they were
live.
"""

from __future__ import annotations

import sys
from array import array

from jarvis_stream.errors import AnswerTooLong
from jarvis_stream.frames import FrameEncoder

OTHER_BYTES = 64
"""What an object for a frame that is no token takes, beside its bytes, and its number."""

READ_BYTES = 64 * 1024
"""About how much one `read` returns."""


class FrameLog:
    """Frames with seq 1, 2, 3 … without gaps.

    `limit` bounds the bytes of text and other frames together; past it `add_token` and
    `add_frame` raise AnswerTooLong and leave the log as it was.
    """

    __slots__ = ("_encoder", "_ends", "_others", "_others_size", "_room", "_text", "seq")

    def __init__(self, encoder: FrameEncoder, limit: int) -> None:
        self._encoder = encoder
        self._room = limit  # for text
        self.seq = 0
        """The number of the last frame; 0 while there is none."""
        self._text = bytearray()
        # Where the text ends after frame seq, at index seq - 1. A frame that adds no text is in
        # _others: a token is never empty.
        self._ends = array("I")
        self._others: dict[int, bytes] = {}
        self._others_size = 0

    def encode_with(self, encoder: FrameEncoder) -> None:
        """Use another encoder; only while there is no token."""
        assert not self._text
        self._encoder = encoder

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text.decode()

    @property
    def text_size(self) -> int:
        """The bytes (UTF-8) of the answer so far."""
        return len(self._text)

    def text_from(self, start: int) -> str:
        """The text after byte `start`, which is 0 or something `text_size` once was."""
        return self._text[start:].decode()

    @property
    def size(self) -> int:
        """The bytes of its frames, as they are kept."""
        return len(self._text) + len(self._ends) * self._ends.itemsize + self._others_size

    @property
    def held(self) -> int:
        """The bytes it takes in memory, nearly: what its objects take, too."""
        parts = (self._text, self._ends, self._others)
        return sum(map(sys.getsizeof, parts)) + self._others_size + len(self._others) * OTHER_BYTES

    def check_room(self, text: str) -> None:
        """Raise AnswerTooLong if a text does not fit."""
        if len(self._text) + len(text.encode()) > self._room:
            raise AnswerTooLong

    def add_token(self, text: str) -> None:
        """Append a piece of the answer (not empty, no lone surrogates)."""
        raw = text.encode()
        whole = self._text
        whole += raw
        end = len(whole)
        if end > self._room:
            del whole[end - len(raw) :]
            raise AnswerTooLong
        self._ends.append(end)
        self.seq += 1

    def add_frame(self, frame: bytes, *, always: bool = False) -> None:
        """Append a frame that is no token; `always` admits it past the limit, as endings are."""
        if not always and len(self._text) + len(frame) > self._room:
            raise AnswerTooLong
        self._ends.append(len(self._text))
        self.seq += 1
        self._others[self.seq] = frame
        self._others_size += len(frame)
        self._room -= len(frame)

    def read(self, after: int, limit: int = READ_BYTES) -> tuple[int, bytes]:
        """Some frames after `after`: the seq of the last one, and their bytes joined.

        At least one frame when there is one, then no more than about `limit` bytes.
        """
        frames: list[bytes] = []
        size = 0
        seq = after
        start = self._ends[after - 1] if after else 0
        while seq < self.seq and size < limit:
            end = self._ends[seq]
            seq += 1
            if end == start:
                frame = self._others[seq]
            else:
                frame = self._encoder.token(seq, self._text[start:end].decode())
            start = end
            size += len(frame)
            frames.append(frame)
        return seq, b"".join(frames)
