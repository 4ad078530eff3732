"""Applications: the owners of credentials, agents, documents and conversations."""

from __future__ import annotations

from palaver.core.admin.audit import AuditLog
from palaver.core.ports.admin import ApplicationRepository
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Application, clean

MAX_NAME = 255


class ApplicationAdmin:
    def __init__(self, repository: ApplicationRepository, audit: AuditLog) -> None:
        self._repository = repository
        self._audit = audit

    async def list_all(self) -> list[Application]:
        """Every application, sorted by name."""
        return await self._repository.list_all()

    async def get(self, name: str) -> Application:
        """Raises ``NotFound``."""
        return await get_application(self._repository, name)

    async def get_or_create(self, name: str) -> Application:
        """The application of that name, created if missing. Raises ``Invalid``."""
        async with self._audit.record("app create", name=name):
            return await get_or_create_application(self._repository, name)

    async def delete(self, name: str) -> Application:
        """Delete an application with its credentials, agents, documents and conversations. Raises ``NotFound``."""
        async with self._audit.record("app delete", name=name):
            application = await get_application(self._repository, name)
            await self._repository.delete(application.name)
            return application


def checked_name(name: str) -> str:
    """A valid name for a new application, trimmed. Raises ``Invalid``."""
    name = clean(name).strip()
    if not name or len(name) > MAX_NAME:
        raise Invalid(
            field="name", rule="length", detail=f"a name must have 1 to {MAX_NAME} characters and must not be blank"
        )
    return name


async def get_or_create_application(repository: ApplicationRepository, name: str) -> Application:
    """Raises ``Invalid``."""
    return await repository.get_or_create(checked_name(name))


async def get_application(repository: ApplicationRepository, name: str) -> Application:
    """Raises ``NotFound``."""
    application = await repository.get(clean(name).strip())
    if application is None:
        raise NotFound(noun="application", ref=name)
    return application


async def get_optional_application(repository: ApplicationRepository, name: str | None) -> Application | None:
    """``None`` for ``None``. Raises ``NotFound``."""
    return None if name is None else await get_application(repository, name)
