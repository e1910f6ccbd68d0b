"""What everybody promises who keeps tickets and logins. Feed it a `keeper`: 30 s, two for each."""

from __future__ import annotations

import asyncio
import time

import pytest

from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import Keeper, digest

ANN = Principal("ann")


class PassesContract:
    """One test for each promise."""

    async def test_a_ticket_is_good_once(self, keeper: Keeper) -> None:
        word = await keeper.issue(ANN)
        found = await asyncio.gather(*(keeper.redeem(word) for _ in range(20)))
        assert sorted(found, key=bool) == [None] * 19 + [ANN]
        assert await keeper.look(word) is None

    async def test_what_was_made_up_stands_for_nobody(self, keeper: Keeper) -> None:
        await keeper.issue(ANN)
        for word in ("made up", "", "\udc00"):
            assert await keeper.look(word) is None
            assert await keeper.redeem(word) is None
            await keeper.drop(word)

    async def test_a_login_is_good_again_and_again_until_it_is_due(self, keeper: Keeper) -> None:
        word = await keeper.issue(ANN)
        for _ in range(2):
            principal = await keeper.look(word)
            assert principal is not None
            assert principal.name == "ann"
            assert principal.expires_at is not None
            assert 0 < principal.expires_at - time.time() <= 30

    async def test_it_expires_with_its_principal(self, keeper: Keeper) -> None:
        soon = Principal("ann", expires_at=time.time() + 10)
        found = await keeper.look(await keeper.issue(soon))
        assert found is not None
        assert found.expires_at == pytest.approx(soon.expires_at, abs=5)
        assert await keeper.redeem(await keeper.issue(soon)) == soon
        late = Principal("ann", expires_at=time.time() - 1)
        assert await keeper.look(await keeper.issue(late)) is None
        assert await keeper.redeem(await keeper.issue(late)) is None

    async def test_a_ticket_names_the_login_it_was_issued_to(self, keeper: Keeper) -> None:
        login = await keeper.issue(ANN)
        principal = await keeper.look(login)
        assert principal is not None
        ticket = await keeper.redeem(await keeper.issue(principal))
        assert ticket is not None
        assert ticket.login == principal.login == digest(login)
        alone = await keeper.redeem(await keeper.issue(ANN))
        assert alone is not None
        assert not alone.login

    async def test_a_word_says_what_its_principal_was_verified_by(self, keeper: Keeper) -> None:
        verified = Principal("ann", source="token:1")
        found = await keeper.look(await keeper.issue(verified))
        assert found is not None
        assert found.source == "token:1"
        ticket = await keeper.redeem(await keeper.issue(found))
        assert ticket is not None
        assert ticket.source == "token:1"

    async def test_a_login_is_found_by_its_digest(self, keeper: Keeper) -> None:
        word = await keeper.issue(ANN)
        found = await keeper.find(digest(word))
        assert found is not None
        assert (found.name, found.login) == ("ann", digest(word))
        await keeper.drop(word)
        assert await keeper.find(digest(word)) is None

    async def test_all_words_of_a_principal_are_dropped_at_once(self, keeper: Keeper) -> None:
        mine = [await keeper.issue(ANN) for _ in range(2)]
        bobs = await keeper.issue(Principal("bob"))
        gone = asyncio.Event()
        keeper.attend(digest(mine[0]), gone.set)
        assert await keeper.drop_all("ann") == 2
        assert [await keeper.look(word) for word in mine] == [None, None]
        assert gone.is_set()
        assert await keeper.look(bobs) is not None
        assert await keeper.drop_all("ann") == 0

    async def test_a_dropped_one_stands_for_nobody(self, keeper: Keeper) -> None:
        word = await keeper.issue(ANN)
        await keeper.drop(word)
        await keeper.drop(word)
        assert await keeper.look(word) is None

    async def test_nobody_drives_out_the_words_of_others(self, keeper: Keeper) -> None:
        bobs = await keeper.issue(Principal("bob"))
        words = [await keeper.issue(ANN) for _ in range(5)]
        assert [await keeper.look(word) is not None for word in words] == [False] * 3 + [True] * 2
        assert await keeper.look(bobs) is not None

    async def test_what_is_used_up_drives_nothing_out(self, keeper: Keeper) -> None:
        kept = await keeper.issue(ANN)
        for _ in range(5):
            assert await keeper.redeem(await keeper.issue(ANN)) == ANN
            await keeper.drop(await keeper.issue(ANN))
        assert await keeper.look(kept) is not None

    async def test_who_attends_is_told_when_it_is_dropped(self, keeper: Keeper) -> None:
        gone = asyncio.Event()
        word, other = await keeper.issue(ANN), await keeper.issue(Principal("bob"))
        keeper.attend(digest(word), gone.set)
        keeper.attend(digest(other), lambda: pytest.fail("it is there"))
        keeper.attend(digest(word), lambda: pytest.fail("it has left"))()
        await keeper.drop(word)
        assert gone.is_set()
