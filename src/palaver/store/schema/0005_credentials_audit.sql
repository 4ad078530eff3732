-- What operators want to know of credentials and of each other.

-- ``previous_…`` is the secret before the last rotation, good until ``previous_until``.
ALTER TABLE credential
    ADD COLUMN label text NOT NULL DEFAULT '',
    ADD COLUMN previous_secret bytea,
    ADD COLUMN previous_fingerprint bytea,
    ADD COLUMN previous_until timestamptz,
    ADD COLUMN calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_used timestamptz;
CREATE INDEX credential_previous ON credential (dialect, previous_fingerprint);

-- Every change that a command made, or tried to make: it outlives what it was about, so it refers to nothing.
-- ``outcome`` is null while the command works, and for good when it was killed.
CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    actor       text NOT NULL,
    action      text NOT NULL,
    application text,
    arguments   jsonb NOT NULL DEFAULT '{}',
    outcome     text
);
CREATE INDEX audit_at ON audit (at);
