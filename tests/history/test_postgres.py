"""History in a PostgreSQL database, on a real server."""

from __future__ import annotations

import pytest
from contracts.history import DurableContract

from .conftest import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


class TestPostgres(DurableContract):
    """See the contract."""
