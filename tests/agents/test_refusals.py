"""Why servers refuse a request, in the words of many vendors."""

from __future__ import annotations

import json

import pytest

from jarvis_stream.agents.refusals import Reason, classify, classify_event

REFUSALS: list[tuple[int, str, Reason]] = [
    (400, '{"code": "context_length_exceeded", "message": "x"}', Reason.TOO_LONG),
    (400, "This model's maximum context length is 2048 tokens.", Reason.TOO_LONG),
    (400, "the request exceeds the available context size, try increasing it", Reason.TOO_LONG),
    (500, "Requested tokens (4097) exceed context window of 2048", Reason.TOO_LONG),
    (400, "prompt is too long: 210000 tokens > 200000 maximum", Reason.TOO_LONG),
    (400, "The input token count (40000) exceeds the maximum number of tokens", Reason.TOO_LONG),
    (400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
     Reason.TOO_LONG),
    (400, "the model is loaded with context length of only 4096 tokens", Reason.TOO_LONG),
    (400, "Please reduce the length of the messages or completion.", Reason.TOO_LONG),
    (413, "Request too large for model `llama` on tokens per minute (TPM)", Reason.TOO_LONG),
    (429, "Request too large for gpt-4o on tokens per min (TPM): Limit 3, Requested 4",
     Reason.TOO_LONG),
    (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. context "
     "window", Reason.TOO_LONG),
    (429, '{"error": {"code": "insufficient_quota"}}', Reason.NO_CREDIT),
    (402, "Insufficient Balance", Reason.NO_CREDIT),
    (402, "", Reason.NO_CREDIT),
    (400, "Your credit balance is too low to access the API.", Reason.NO_CREDIT),
    (429, "You exceeded your current quota. RESOURCE_EXHAUSTED retryDelay: 13s", Reason.BUSY),
    (429, "Rate limit reached: context_length", Reason.BUSY),
    (503, "overloaded", Reason.BUSY),
    (503, "the queue length exceeds the maximum queue length", Reason.BUSY),
    (500, "CUDA error", Reason.BUSY),
    (529, "", Reason.BUSY),
    (408, "", Reason.BUSY),
    (401, "Incorrect API key", Reason.CREDENTIALS),
    (403, "Model is not allowed", Reason.CREDENTIALS),
    (400, "API key not valid. Please pass a valid API key.", Reason.CREDENTIALS),
    (400, '{"error": {"message": "No connected db.", "type": "no_db_connection"}}',
     Reason.CREDENTIALS),
    (400, "The response was filtered due to the prompt triggering Azure OpenAI's content "
     "management policy.", Reason.POLICY),
    (403, "Your chosen model requires moderation and your input was flagged", Reason.POLICY),
    (400, "Content Exists Risk", Reason.POLICY),
    (404, "The model `x` does not exist", Reason.UNKNOWN_MODEL),
    (400, "Invalid model name passed in model=x", Reason.UNKNOWN_MODEL),
    (400, "Model Not Exist", Reason.UNKNOWN_MODEL),
    (404, 'model "x" not found, try pulling it first', Reason.UNKNOWN_MODEL),
    (400, '"bge-m3:latest" does not support chat', Reason.NO_CHAT),
    (404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
     Reason.NO_CHAT),
    (400, "The model `whisper-1` does not support Chat Completions API.", Reason.NO_CHAT),
    (422, json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}),
     Reason.STREAM_OPTIONS),
    (400, "Validation error at #/stream_options: Extra inputs are not permitted",
     Reason.STREAM_OPTIONS),
    (400, "Unrecognized request argument supplied: stream_options", Reason.STREAM_OPTIONS),
    (400, "Additional properties are not allowed", Reason.STREAM_OPTIONS),
    (500, "unknown field include_usage", Reason.STREAM_OPTIONS),
    (400, "Your organization must be verified to stream this model.", Reason.STREAM),
    (400, "Unsupported value: 'stream' does not support true with this model.", Reason.STREAM),
    (500, "Jinja Exception: System role not supported", Reason.SYSTEM_ROLE),
    (400, "Conversation roles must alternate user/assistant/user/assistant/...",
     Reason.SYSTEM_ROLE),
    (400, "Developer instruction is not enabled for models/gemma-3-27b-it", Reason.SYSTEM_ROLE),
    (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
     Reason.SYSTEM_ROLE),
    (400, "temperature: bad value", Reason.OTHER),
    (302, "", Reason.OTHER),
]  # fmt: skip


@pytest.mark.parametrize(("status", "text", "reason"), REFUSALS)
def test_the_reason_is_read_from_status_and_wording(status: int, text: str, reason: Reason) -> None:
    assert classify(status, text.encode()) is reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"error": {"code": "insufficient_quota"}}', Reason.NO_CREDIT),
        ('{"error": {"code": "context_length_exceeded"}}', Reason.TOO_LONG),
        ('{"error": {"code": 429, "message": "Provider returned error"}}', Reason.BUSY),
        ('{"error": {"code": 502}}', Reason.BUSY),
        ('{"error": {"type": "overloaded_error"}}', Reason.BUSY),
        ('{"error": {"code": 500, "message": "CUDA out of memory"}}', Reason.OTHER),
        ('{"error": {"message": "x", "code": "content_filter"}}', Reason.POLICY),
    ],
)
def test_the_reason_is_read_from_an_event(text: str, reason: Reason) -> None:
    assert classify_event(text.encode()) is reason


def test_a_long_body_is_read_in_linear_time() -> None:
    for text in (b"a " * 2000, b"exceeds the " * 300, b"input " * 700, b"not support " * 300):
        classify(400, text)
