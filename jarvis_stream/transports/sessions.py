"""What was said in a session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from jarvis_stream.errors import NotFound
from jarvis_stream.history.base import TurnRecord
from jarvis_stream.ids import SESSION_ID
from jarvis_stream.transports.answers import json_answer
from jarvis_stream.transports.context import REGISTRY
from jarvis_stream.transports.requests import shorten

routes = web.RouteTableDef()


@routes.get("/api/sessions/{session_id}/messages")
async def messages(request: web.Request) -> web.Response:
    """The session's messages, oldest first, and where its live stream stands."""
    session_id = request.match_info["session_id"]
    registry = request.app[REGISTRY]
    turns = registry.history.turns(session_id) if SESSION_ID.fullmatch(session_id) else []
    if not turns:
        raise NotFound(f"no session {shorten(session_id)} is known here")
    live = registry.head(session_id)
    return json_answer(
        {
            "session_id": session_id,
            "messages": [message for turn in turns for message in _messages(turn)],
            "active_stream": live
            and {"stream_id": live.stream_id, "epoch": live.epoch, "seq": live.seq},
        }
    )


def _messages(turn: TurnRecord) -> list[dict[str, Any]]:
    created_at = datetime.fromtimestamp(turn.created_at, UTC)
    return [
        {
            "id": f"{turn.stream_id}:{role}",
            "role": role,
            "content": content,
            "status": status,
            "stream_id": turn.stream_id,
            "created_at": created_at,
        }
        for role, content, status in (
            ("user", turn.prompt, "complete"),
            ("assistant", turn.text, turn.status),
        )
    ]
