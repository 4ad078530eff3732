-- What the four vendors' APIs show beyond a plain conversation: profiles, subscriptions, files, answers kept for
-- Idempotency-Keys, user tokens.

ALTER TABLE end_user ADD COLUMN nickname text, ADD COLUMN avatar text;

CREATE TABLE subscription (
    app      bigint NOT NULL,
    end_user bigint NOT NULL,
    agent    bigint NOT NULL,
    created  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, end_user, agent),
    FOREIGN KEY (app, end_user) REFERENCES end_user (app, id) ON DELETE CASCADE,
    FOREIGN KEY (app, agent) REFERENCES agent (app, id) ON DELETE CASCADE
);

-- ``last_status`` is how the turn that ended last came to its end.
ALTER TABLE conversation
    ADD COLUMN icon text,
    ADD COLUMN summary text,
    ADD COLUMN variables jsonb,
    ADD COLUMN last_status text;

ALTER TABLE usage
    ADD COLUMN day_start timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN day_count bigint NOT NULL DEFAULT 0;

-- A claim has a run, or the answer that was given, or (``run`` and ``status`` null) somebody works on it.
ALTER TABLE claim
    ALTER COLUMN run DROP NOT NULL,
    ADD COLUMN worker integer,
    ADD COLUMN status integer,
    ADD COLUMN media_type text,
    ADD COLUMN headers jsonb,
    ADD COLUMN body bytea;

CREATE TABLE file (
    app          bigint NOT NULL,
    id           bigint GENERATED ALWAYS AS IDENTITY,
    uid          uuid NOT NULL,
    end_user     bigint NOT NULL,
    key          text NOT NULL,
    name         text NOT NULL,
    media_type   text NOT NULL,
    size         bigint NOT NULL,
    digest       bytea NOT NULL,
    details      jsonb NOT NULL DEFAULT '{}',
    created      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, key),
    FOREIGN KEY (app, end_user) REFERENCES end_user (app, id) ON DELETE CASCADE
);

-- A file's bytes in pieces, so that every machine on the database has them and none needs the whole in memory.
CREATE TABLE file_piece (
    app    bigint NOT NULL,
    file   bigint NOT NULL,
    number integer NOT NULL,
    bytes  bytea NOT NULL,
    PRIMARY KEY (app, file, number),
    FOREIGN KEY (app, file) REFERENCES file (app, id) ON DELETE CASCADE
);
ALTER TABLE file_piece ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Tokens and codes that stand for an end user; only their keyed hash is here.
CREATE TABLE token (
    app        bigint NOT NULL,
    credential bigint NOT NULL,
    hash       bytea NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('access', 'refresh', 'code')),
    end_user   text NOT NULL,
    scopes     text[] NOT NULL,
    redirect   text,
    expires    timestamptz NOT NULL,
    PRIMARY KEY (app, hash),
    FOREIGN KEY (app, credential) REFERENCES credential (app, number) ON DELETE CASCADE
);
CREATE INDEX token_hash ON token (hash);
CREATE INDEX token_expires ON token (expires);

-- Request ids that a credential must not repeat.
CREATE TABLE seen_request (
    app        bigint NOT NULL,
    credential bigint NOT NULL,
    request    text NOT NULL,
    expires    timestamptz NOT NULL,
    PRIMARY KEY (app, credential, request),
    FOREIGN KEY (app, credential) REFERENCES credential (app, number) ON DELETE CASCADE
);
CREATE INDEX seen_request_expires ON seen_request (expires);
