"""Databases for tests: copies of a migrated one, used again once they are empty."""

from __future__ import annotations

import itertools
import os
from collections import Counter

from palaver.store.driver import connect
from palaver.store.migrate import migrate

MAX_USES = 50
"""Tests that a database serves; its tables keep the space of deleted rows."""
MAX_TABLE_BYTES = 4 * 2**20
"""Total size of the tables of a database that is used again; larger ones take longer to empty than to copy."""

_numbers = itertools.count(1)

_SCHEMA = """
SELECT md5(string_agg(item, E'\n' ORDER BY item)) FROM (
    SELECT concat_ws(' ', relname, relkind, relhastriggers, relacl) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', attrelid::regclass, attname, atttypid, attnotnull, atthasdef)
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
    UNION ALL SELECT concat_ws(' ', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT proname || md5(prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_t'
    UNION ALL SELECT concat_ws(' ', extname, extversion) FROM pg_extension
    UNION ALL SELECT concat_ws(' ', datconnlimit, datallowconn, datacl) FROM pg_database
        WHERE datname = current_database()
    UNION ALL SELECT concat_ws(' ', number, name) FROM migration
    UNION ALL SELECT concat_ws(' ', setrole, setconfig) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS schema (item)"""
"""A digest of everything in a database but its data."""

_TABLES = """
SELECT relname AS name, pg_relation_size(oid) AS size FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'migration'
    AND pg_relation_size(oid) > 0"""

_DISCONNECT_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

_CLEAR = """
SELECT setval(seqrelid, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL;
SET session_replication_role = replica"""


class Databases:
    """A PostgreSQL server for tests, which copies databases from a migrated one. Copying and dropping take many times
    as long as emptying, so a copy is used again once it is empty."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._empty: list[str] = []
        """Databases as good as new."""
        self._uses: Counter[str] = Counter()
        self._schema = self._meta = ""

    def at(self, name: str) -> str:
        return self.url.replace("/postgres?", f"/{name}?")

    async def prepare(self) -> None:
        """Make the migrated database that the tests' are copies of; whoever comes first does."""
        connection = await connect(self.url, timeout=10)
        try:
            await connection.execute("SELECT pg_advisory_lock(1)")
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'template'"):
                # Every copy and every drop would wait for the disk; nothing here outlives the machine.
                await connection.execute("ALTER SYSTEM SET fsync = off")
                await connection.execute("SELECT pg_reload_conf()")
                await connection.execute("CREATE DATABASE template")
                await migrate(self.at("template"))
            template = await connect(self.at("template"), timeout=10)
            try:
                self._schema = await template.fetchval(_SCHEMA)
                self._meta = await template.fetchval("SELECT jsonb_agg(meta)::text FROM meta")
            finally:
                await template.close()
        finally:
            await connection.close()

    async def acquire(self) -> tuple[str, str]:
        """(name, address) of a migrated database without data."""
        if not self._empty:
            return await self.create()
        name = self._empty.pop()
        return name, self.at(name)

    async def release(self, name: str) -> None:
        """Empty the database for its next user; drop it if it has been changed or used many times."""
        self._uses[name] += 1
        if self._uses[name] < MAX_USES and await self._clear(name):
            self._empty.append(name)
        else:
            await self.drop(name)

    async def create(self, how: str = "TEMPLATE template STRATEGY file_copy") -> tuple[str, str]:
        """(name, address) of a new database: a copy of the migrated one, or made as ``how`` says."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        await self._admin(f"CREATE DATABASE {name} {how}")
        return name, self.at(name)

    async def drop(self, name: str) -> None:
        await self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    async def _clear(self, name: str) -> bool:
        """Delete all rows, fast. Returns False if the database is large, or differs from the template in more than its
        rows."""
        connection = await connect(self.at(name), timeout=10)
        try:
            await connection.execute(_DISCONNECT_OTHERS)
            tables = await connection.fetch(_TABLES)
            if (
                sum(row["size"] for row in tables) > MAX_TABLE_BYTES
                or await connection.fetchval(_SCHEMA) != self._schema
            ):
                return False
            await connection.execute(";".join((_CLEAR, *(f"DELETE FROM {row['name']}" for row in tables))))
            await connection.execute(
                "INSERT INTO meta SELECT * FROM jsonb_populate_recordset(NULL::meta, $1)", self._meta
            )
            return True
        finally:
            await connection.close()

    async def _admin(self, sql: str) -> None:
        connection = await connect(self.url, timeout=10)
        try:
            # Copying needs the template to itself, and one copy at a time.
            await connection.execute("SELECT pg_advisory_lock(1)")
            await connection.execute(sql)
        finally:
            await connection.close()
