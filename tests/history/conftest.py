"""Opens the history that a module is about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from contracts.history import PATIENT

from jarvis_stream.history.base import History, Limits
from jarvis_stream.history.open import open_history


@pytest.fixture
def backend(url: str) -> Callable[..., AbstractAsyncContextManager[History]]:
    """Opens the history at the module's `url`."""

    def open_one(limits: Limits = PATIENT) -> AbstractAsyncContextManager[History]:
        return open_history(url, limits)

    return open_one
