"""A streaming server for chat and agent UIs: one live stream per session, on two transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis_stream.agents.base import Turn
from jarvis_stream.frames import Done, Status

if TYPE_CHECKING:
    from jarvis_stream.app import create_app

__all__ = ["Done", "Status", "Turn", "__version__", "create_app"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # An agent module imports Turn and Status; it should not pay for aiohttp and the settings.
    if name == "create_app":
        from jarvis_stream.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
