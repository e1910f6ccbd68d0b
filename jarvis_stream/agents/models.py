"""The choice of a model from a server's list: one that can chat."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from jarvis_stream.agents.surrogates import loads

# Most lists give only names, so the names decide.
_NO_CHAT_PARTS: Final = re.compile(
    "embed|rerank|paraphrase|whisper|speech|transcri|dall-e|stable-diffusion|moderation"
    "|turbo-instruct|computer-use|shieldgemma|llamaguard"
)
_NO_CHAT_WORDS: Final = re.compile(
    r"(?<![a-z0-9])(?:bge|gte|e5|uae|minilm|mpnet|mxbai|colbert|labse|sentence|instructor"
    r"|x?tts|asr|stt|kokoro|parakeet|canary|piper|bark|realtime|audio|lyria"
    r"|image|imagen|sdxl|sd3?|flux|sora|veo|clip|siglip2?"
    r"|guard|guardian|safeguard|aqa|babbage|davinci)(?![a-z0-9])"
)
_NO_CHAT_TYPES: Final = frozenset(
    {"embedding", "embeddings", "image", "audio", "rerank", "moderation", "transcribe", "video"}
    | {"speech", "tts", "stt", "transcription", "image_generation", "audio_transcription"}
)


def first_chat_model(listing: bytes, without: Collection[str] = ()) -> str | None:
    """Return the first model of a `GET /models` body that can chat, as far as the list says.

    `without` names models that have turned out not to. None when there is none, or when the body
    is no list of models.
    """
    return next((name for name in listed_models(listing, chat=True) if name not in without), None)


def listed_models(listing: bytes, *, chat: bool = False) -> list[str]:
    """Return the names in a `GET /models` body: all of them, or those of models that can chat."""
    try:
        models = loads(listing)
        if isinstance(models, dict):
            models = models["data"]
        return [
            model["id"]
            for model in models
            if _is_name(model["id"]) and (not chat or _may_chat(model))
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _is_name(name: object) -> bool:
    # The name comes from a stranger, and is shown on a terminal and a page.
    return isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()


def _may_chat(model: dict[str, Any]) -> bool:
    can = model.get("capabilities")
    if isinstance(can, dict) and can.get("completion_chat") is False:
        return False
    kind = model.get("type") or model.get("mode") or model.get("task")
    if isinstance(kind, str) and kind.lower() in _NO_CHAT_TYPES:
        return False
    architecture = model.get("architecture")
    if isinstance(architecture, dict):
        outputs = architecture.get("output_modalities")
        if isinstance(outputs, list) and "text" not in outputs:
            return False
    name = model["id"].lower().rpartition("/")[2]  # the publisher's name says nothing
    return not (_NO_CHAT_PARTS.search(name) or _NO_CHAT_WORDS.search(name))
