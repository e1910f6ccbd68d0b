"""The choice of a model that can chat from a server's list."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jarvis_stream.agents.models import first_chat_model, listed_models


def listing(*models: str | dict[str, Any]) -> bytes:
    entries = [{"id": model} if isinstance(model, str) else model for model in models]
    return json.dumps({"object": "list", "data": entries}).encode()


@pytest.mark.parametrize(
    "other",
    [
        "nomic-embed-text:latest",
        "bge-m3:latest",
        "all-minilm:latest",
        "snowflake-arctic-embed2",
        "mxbai-embed-large",
        "text-embedding-3-small",
        "text-embedding-nomic-embed-text-v1.5",
        "intfloat/multilingual-e5-large",
        "thenlper/gte-large",
        "bge-reranker-v2-m3",
        "jina-reranker-v2",
        "whisper-large-v3",
        "distil-whisper-large-v3-en",
        "tts-1",
        "gpt-4o-mini-tts",
        "gpt-4o-transcribe",
        "gpt-4o-realtime-preview",
        "playai-tts-arabic",
        "microsoft/speecht5_tts",
        "kokoro-82m",
        "dall-e-3",
        "gpt-image-1",
        "models/imagen-4.0-generate-001",
        "models/veo-3.0-generate-001",
        "black-forest-labs/FLUX.1-dev",
        "stable-diffusion-xl-1024",
        "sora-2",
        "clip-vit-base",
        "omni-moderation-latest",
        "meta-llama/llama-guard-4-12b",
        "openai/gpt-oss-safeguard-20b",
        "babbage-002",
        "davinci-002",
        "gpt-3.5-turbo-instruct",
        "models/aqa",
    ],
)
def test_a_model_that_cannot_chat_is_passed_over(other: str) -> None:
    assert first_chat_model(listing(other, "llama3.2:latest")) == "llama3.2:latest"
    assert first_chat_model(listing(other)) is None


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2:latest",
        "gpt-4o",
        "gpt-5-mini",
        "o3",
        "claude-sonnet-4-5",
        "mistral-7b-instruct",
        "Qwen/Qwen3-8B",
        "deepseek-r1:8b",
        "deepseek-reasoner",
        "magistral-small",
        "gemma3:270m",
        "models/gemini-2.5-flash",
        "phi-4",
        "gpt-oss:20b",
        "sdk-model",
        "hf.co/embedders/chat-model",
        "google_gemma-3-4b-it-Q4_K_M.gguf",
    ],
)
def test_a_model_that_can_chat_is_taken(name: str) -> None:
    assert first_chat_model(listing(name)) == name


@pytest.mark.parametrize(
    "other",
    [
        {"id": "x", "capabilities": {"completion_chat": False}},
        {"id": "x", "type": "embeddings"},
        {"id": "x", "type": "image"},
        {"id": "x", "architecture": {"output_modalities": ["image"]}},
    ],
)
def test_what_the_list_says_of_a_model_counts(other: dict[str, Any]) -> None:
    can = {"id": "can", "capabilities": {"completion_chat": True}, "type": "chat"}
    assert first_chat_model(listing(other, can)) == "can"


def test_a_list_without_an_envelope_is_read() -> None:
    assert first_chat_model(b'[{"id": "a", "type": "image"}, {"id": "b", "type": "chat"}]') == "b"


def test_models_that_are_known_not_to_chat_are_left_out() -> None:
    assert first_chat_model(listing("a", "b"), {"a"}) == "b"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"5", b"<html>", b'{"data": [{}]}', b"[[]]"])
def test_a_body_that_is_no_list_has_no_models(body: bytes) -> None:
    assert first_chat_model(body) is None
    assert listed_models(body) == []


def test_names_that_are_not_printable_are_left_out() -> None:
    assert listed_models(listing("a\x1b[31m", "x" * 201, "", "b")) == ["b"]


def test_half_a_character_in_a_model_list_hides_no_other_model() -> None:
    assert first_chat_model(listing("x\ud83d", "chat")) == "chat"
