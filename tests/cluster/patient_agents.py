"""The counting agent, for servers that wait for their database however busy the machine is.

A question that is not saved within a second is answered nevertheless, and is lost with its server.
"""

from __future__ import annotations

import functools

from jarvis_stream import app
from jarvis_stream.history.base import Limits

from .agents import counting

__all__ = ["counting"]

vars(app)["HistoryLimits"] = functools.partial(
    Limits, begin_timeout=20.0, save_timeout=20.0, read_timeout=20.0
)
