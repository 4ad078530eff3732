"""The use cases of operators: what they return, what they refuse, and what the audit log says of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.kit import product

from palaver.app import Core
from palaver.core.admin.admin import Admin
from palaver.core.problems import Conflict, Invalid, NotFound
from palaver.core.types import AgentSpec

AdminSession = Callable[[], AbstractAsyncContextManager[tuple[Admin, Core]]]


@pytest.fixture
def admin_session(database_url: str, tmp_path: Path) -> AdminSession:
    """The use cases of the operator ``ann``, and all else of the product."""

    @asynccontextmanager
    async def session() -> AsyncGenerator[tuple[Admin, Core]]:
        async with product(database_url, tmp_path / "data") as core:
            yield core.admin("ann"), core

    return session


async def _entries(admin: Admin) -> list[tuple[str, str | None, dict[str, Any], str | None]]:
    return [(e.action, e.application, e.arguments, e.outcome) for e in await admin.audit.list_newest(100)]


async def test_applications_are_created_once_and_deleted(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        shop = await admin.applications.get_or_create(" shop ")
        assert (shop.name, await admin.applications.get_or_create("shop")) == ("shop", shop)
        assert await admin.applications.get("shop ") == shop
        assert await admin.applications.list_all() == [shop]
        assert await admin.applications.delete("shop") == shop
        with pytest.raises(NotFound):
            await admin.applications.get("shop")
        for name in ("", "  ", "x" * 256):
            with pytest.raises(Invalid):
                await admin.applications.get_or_create(name)


async def test_a_credential_is_created_with_its_application_configured_and_deleted(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, core):
        created = await admin.credentials.create("shop", "snail", {"rpm": 5, "agents": ["guide", 7]}, label="Shop & Co")
        assert (created.application.name, created.key.label) == ("shop", "Shop & Co")
        assert created.key.settings == {"rpm": 5, "agents": ["guide", "7"]}
        assert created.unknown_agents == ("guide", "7")
        assert await core.store.keys.get_by_secret("snail", created.key.secret) == created.key
        await admin.agents.upsert_all("shop", [AgentSpec(name="guide", model="scripted")])
        changed = await admin.credentials.update(created.key.id, {"rpm": 6, "enabled": False}, unset=["agents"])
        assert (changed.key.settings, changed.key.enabled, changed.key.label) == ({"rpm": 6}, False, "Shop & Co")
        assert (await admin.credentials.update(created.key.id, {}, unset=["enabled"])).key.enabled
        (listed,) = await admin.credentials.list_all("shop")
        assert (listed.application, listed.use.calls, listed.use.last_used) == ("shop", 0, None)
        await admin.credentials.delete(created.key.id)
        assert await admin.credentials.list_all() == []


async def test_a_credential_is_disabled_enabled_and_given_another_secret(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        key = (await admin.credentials.create("shop", "snail", id="mine", secret="old")).key
        assert (key.id, key.secret) == ("mine", "old")
        assert not (await admin.credentials.disable("mine")).key.enabled
        assert (await admin.credentials.enable("mine", "snail")).key.enabled
        rotated = (await admin.credentials.rotate("mine", overlap_s=60)).key
        assert rotated.secret.startswith("SAI_")
        assert rotated.previous_secret == "old"


async def test_an_id_that_two_dialects_have_needs_the_dialect(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        for dialect in ("snail", "wps"):
            await admin.credentials.create("shop", dialect, id="same")
        with pytest.raises(Conflict):
            await admin.credentials.disable("same")
        assert (await admin.credentials.delete("same", "wps")).dialect == "wps"
        assert (await admin.credentials.get("same")).dialect == "snail"


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("dialect", {"dialect": "nobody"}),
        ("rpm", {"settings": {"rpm": 0}}),
        ("frob", {"settings": {"frob": 1}}),
        ("id", {"id": "line\nbreak"}),
        ("secret", {"secret": " "}),
        ("label", {"label": "x" * 256}),
    ],
)
async def test_a_credential_that_is_not_allowed_creates_nothing(
    admin_session: AdminSession, field: str, arguments: dict[str, Any]
) -> None:
    async with admin_session() as (admin, _):
        request: dict[str, Any] = {"application": "shop", "dialect": "snail", **arguments}
        with pytest.raises(Invalid) as error:
            await admin.credentials.create(**request)
        assert error.value.field == field
        assert await admin.applications.list_all() == []


async def test_an_unknown_setting_cannot_be_removed(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        await admin.credentials.create("shop", "snail", {"rpm": 5}, id="mine")
        with pytest.raises(Invalid, match="unknown setting"):
            await admin.credentials.update("mine", unset=["frob", "rpm"])
        assert (await admin.credentials.get("mine")).settings == {"rpm": 5}


async def test_agents_are_applied_with_what_keeps_them_from_answering(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        specs = [
            AgentSpec(name="desk", model="scripted", alias=("d",)),
            AgentSpec(name="clerk", model="gpt-5", knowledge=("house",)),
        ]
        checks = await admin.agents.check("hotel", specs)
        assert await admin.applications.list_all() == []
        applied = await admin.agents.upsert_all("hotel", specs)
        assert list(applied.checks) == checks
        assert (applied.checks[0].missing_knowledge, applied.checks[0].model_problem) == ((), "")
        assert applied.checks[1].missing_knowledge == ("house",)
        assert "openai:gpt-5" in applied.checks[1].model_problem
        assert await admin.agents.get("hotel", "d") == applied.agents[0]
        assert [(name, agent.name) for name, agent in await admin.agents.list_all()] == [
            ("hotel", "clerk"),
            ("hotel", "desk"),
        ]
        assert await admin.agents.delete("hotel", "desk") == applied.agents[0]
        with pytest.raises(NotFound):
            await admin.agents.get("hotel", "desk")


async def test_documents_are_added_found_and_removed(admin_session: AdminSession, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        (folder / "rooms.md").write_text("# Rooms\n\nBreakfast is at seven.\n")

    async with admin_session() as (admin, _):
        bases = admin.knowledge_bases
        done: list[int] = []
        owner, report = await bases.add("hotel", "house", folders, lambda progress: done.append(progress.done))
        assert (owner.name, report.added, done) == ("hotel", ("rooms.md", "rooms.md"), [1, 2])
        ((name, base),) = await bases.list_all()
        assert (name, base.name, base.documents) == ("hotel", "house", 2)
        assert [passage.source for passage in await bases.search("hotel", "house", "breakfast", 1)] == ["rooms.md"]
        with pytest.raises(Invalid, match="in several folders"):
            await bases.remove("hotel", "house", ["rooms.md"])
        with pytest.raises(NotFound):
            await bases.remove("hotel", "house", ["cellar.md"])
        assert (await bases.remove("hotel", "house", [f"{folders[0]}/rooms.md"]))[1] == ["rooms.md"]
        assert [document.root for document in await bases.list_documents("hotel", "house")] == [str(folders[1])]
        assert (await bases.remove("hotel", "house"))[1] == ["rooms.md"]
        assert await bases.list_all("hotel") == []


async def test_the_data_of_an_end_user_is_exported_with_files_and_deleted(admin_session: AdminSession) -> None:
    content = b"x" * 1_500_000

    async with admin_session() as (admin, core):
        shop = await admin.applications.get_or_create("shop")
        user = await core.store.users.get_or_create(shop.id, "bob")
        await core.store.files.add(
            shop.id, user.id, key="k1", name="a.txt", media_type="text/plain", content=content, details={}
        )
        assert await admin.users.get("shop", "bob") == (shop, user)
        assert [entry["type"] async for entry in admin.users.export(shop, user)] == ["user", "file"]
        chunks = await admin.users.file_content(shop, "k1")
        assert chunks is not None
        assert b"".join([chunk async for chunk in chunks]) == content
        assert await admin.users.file_content(shop, "k2") is None
        removed = await admin.users.delete("shop", "bob")
        assert (removed["users"], removed["files"]) == (1, 1)
        assert set((await admin.users.delete("shop", "bob")).values()) == {0}
        with pytest.raises(NotFound):
            await admin.users.get("shop", "bob")


async def test_every_change_is_in_the_audit_log_without_secrets(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        await admin.credentials.create("shop", "snail", {"rpm": 5}, id="mine", secret="hushhush")
        await admin.credentials.rotate("mine", overlap_s=60)
        with pytest.raises(NotFound):
            await admin.agents.delete("shop", "nobody")
        await admin.users.delete("shop", "bob")
        await admin.credentials.list_all()
        assert await _entries(admin) == [
            ("key create", "shop", {"dialect": "snail", "settings": {"rpm": 5}, "id": "mine"}, "done"),
            ("key rotate", None, {"id": "mine", "overlap": 60}, "done"),
            ("agent delete", "shop", {"agent": "nobody"}, "failed: not_found(noun='agent', ref='nobody')"),
            ("user forget", "shop", {}, "done"),
        ]
        assert {entry.actor for entry in await admin.audit.list_newest(100)} == {"ann"}
        assert [entry.action for entry in await admin.audit.list_newest(1, application="shop")] == ["user forget"]


async def test_a_change_in_progress_has_no_outcome_yet(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, _):
        async with admin.audit.record("demo"):
            assert await _entries(admin) == [("demo", None, {}, None)]
        assert await _entries(admin) == [("demo", None, {}, "done")]


async def test_what_nobody_asked_for_is_not_in_the_audit_log(admin_session: AdminSession) -> None:
    async with admin_session() as (admin, core):
        await core.admin().applications.get_or_create("shop")
        assert await _entries(admin) == []
