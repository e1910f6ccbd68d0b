"""The cookies that tell visitors apart, and the secret that signs them."""

from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.identity.visitors import (
    PREFIX,
    RENEWAL_SECONDS,
    VISITOR_SECONDS,
    SecretUnusable,
    Visitors,
    parse_secrets,
    secret_in,
)

ONE, OTHER = "1" * 32, "2" * 40


def jar(cookie: str) -> dict[str, str]:
    """A request's cookies: with the only one that it has."""
    name, _, value = cookie.partition("=")
    return {name: value}


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_new_visitor_is_like_no_other() -> None:
    visitors = Visitors([ONE])
    names = {visitors.new().principal.name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(PREFIX) for name in names)


def test_every_node_with_the_secret_knows_the_visitor() -> None:
    new = Visitors([ONE]).new()
    seen = Visitors([ONE]).lookup(jar(new.cookie))
    assert seen is not None
    assert seen.principal == new.principal
    assert seen.cookie == ""
    assert ONE not in new.cookie + repr(Visitors([ONE]))


def test_another_secret_accepts_nothing() -> None:
    assert Visitors([OTHER]).lookup(jar(Visitors([ONE]).new().cookie)) is None


def test_every_changed_character_is_noticed() -> None:
    visitors = Visitors([ONE])
    cookie = visitors.new().cookie
    for at, character in enumerate(cookie):
        forged = cookie[:at] + ("1" if character != "1" else "2") + cookie[at + 1 :]
        if at < len(cookie) - 1 and character != "=":  # two bits of the last character mean nothing
            assert visitors.lookup(jar(forged)) is None, at
    assert visitors.lookup(jar(cookie + "A")) is None
    assert visitors.lookup(jar(cookie[:-1])) is None


@given(st.text(max_size=120))
def test_rubbish_is_nobody(text: str) -> None:
    visitors = Visitors([ONE])
    name = visitors.new().cookie.partition("=")[0]
    assert visitors.lookup({name: text, text: text}) is None


def test_an_old_cookie_is_renewed_and_then_not_accepted() -> None:
    clock = Clock()
    visitors = Visitors([ONE], clock)
    new = visitors.new()
    clock.now += RENEWAL_SECONDS + 2
    renewed = visitors.lookup(jar(new.cookie))
    assert renewed is not None
    assert renewed.principal == new.principal
    assert renewed.cookie not in ("", new.cookie)
    clock.now += VISITOR_SECONDS - 10
    assert visitors.lookup(jar(new.cookie)) is None
    assert visitors.lookup(jar(renewed.cookie)) is not None


def test_a_cookie_of_the_future_is_not_accepted() -> None:
    clock = Clock()
    visitors = Visitors([ONE], clock)
    clock.now += 2 * RENEWAL_SECONDS
    cookie = visitors.new().cookie
    clock.now -= 2 * RENEWAL_SECONDS
    assert visitors.lookup(jar(cookie)) is None


def test_servers_on_one_host_do_not_take_each_others_cookies() -> None:
    """Cookies know no ports: the browser sends both to both."""
    one, other = Visitors([ONE]), Visitors([OTHER])
    both = [one.new(), other.new()]
    sent = {key: value for new in both for key, value in jar(new.cookie).items()}
    for visitors, new in zip((one, other), both, strict=True):
        seen = visitors.lookup(sent)
        assert seen is not None
        assert seen.principal == new.principal


def test_after_a_rotation_old_cookies_are_issued_again_under_the_new_secret() -> None:
    old = Visitors([ONE]).new()
    rotated = Visitors([OTHER, ONE]).lookup(jar(old.cookie))
    assert rotated is not None
    assert rotated.principal == old.principal
    again = Visitors([OTHER]).lookup(jar(rotated.cookie))
    assert again is not None
    assert again.principal == old.principal


@pytest.mark.parametrize("text", ["", "short", ONE + ",", f"{ONE},{ONE}", "x" * 31 + " ", "é" * 32])
def test_a_secret_that_is_none_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as refused:
        parse_secrets(text)
    assert ONE not in str(refused.value)


def test_several_secrets_are_separated_by_commas() -> None:
    assert parse_secrets(f"{ONE}, {OTHER}") == [ONE, OTHER]


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / "history.sqlite3.cookie-secret"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(secret_in, [file] * 16))
    assert len(found) == 1
    assert found == {secret_in(file)}
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "short", "\xff" * 40])
def test_a_file_without_a_secret_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(SecretUnusable, match="secret holds no secret"):
        secret_in(file)
