"""Ten tabs show one session and one of them stalls: that is nobody else's business."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from processes import Server

from .clients import Api, Wire, check_stream, lines, masked, new_id, outcome, talking_to, text_of, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, peak, resident
from .reciter import RECITER
from .steadfast import Reading, Transport, read
from .test_one_stream_per_session import is_idle

NARROW = 4096
PAGES = 2_000
EACH = 0.0005
"""Seconds per page: the answer is being made while the nine read it."""
