-- Applications, credentials, agents, end users, conversations, messages.
-- Every table belongs to an application, and says so in its keys.

CREATE TABLE meta (
    name  text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE application (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text NOT NULL UNIQUE,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE credential (
    app         bigint NOT NULL REFERENCES application ON DELETE CASCADE,
    number      bigint GENERATED ALWAYS AS IDENTITY,
    dialect     text NOT NULL,
    id          text NOT NULL,
    secret      bytea NOT NULL,         -- AES-GCM, see store/secrets.py
    fingerprint bytea NOT NULL,         -- keyed hash of the secret, for callers who send nothing else
    enabled     boolean NOT NULL DEFAULT true,
    settings    jsonb NOT NULL DEFAULT '{}',
    created     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, number),
    UNIQUE (dialect, id),
    UNIQUE (dialect, fingerprint)
);

-- What a credential has used. A row exists only for credentials with a limit.
CREATE TABLE usage (
    app          bigint NOT NULL,
    credential   bigint NOT NULL,
    minute_start timestamptz NOT NULL DEFAULT now(),
    minute_count bigint NOT NULL DEFAULT 0,
    total        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (app, credential),
    FOREIGN KEY (app, credential) REFERENCES credential (app, number) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE agent (
    app      bigint NOT NULL REFERENCES application ON DELETE CASCADE,
    id       bigint GENERATED ALWAYS AS IDENTITY,
    uid      uuid NOT NULL,
    name     text NOT NULL,
    spec     jsonb NOT NULL,
    created  timestamptz NOT NULL DEFAULT now(),
    modified timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, name)
);

CREATE TABLE agent_alias (
    app   bigint NOT NULL,
    alias text NOT NULL,
    agent bigint NOT NULL,
    PRIMARY KEY (app, alias),
    FOREIGN KEY (app, agent) REFERENCES agent (app, id) ON DELETE CASCADE
);

CREATE TABLE end_user (
    app     bigint NOT NULL REFERENCES application ON DELETE CASCADE,
    id      bigint GENERATED ALWAYS AS IDENTITY,
    uid     uuid NOT NULL,
    name    text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, name)
);

-- ``queue`` holds the ids of the live runs in their order: the first one works, the others wait. It is the
-- conversation's lock: whoever adds a run or ends one updates this row, so order and numbers are exact.
CREATE TABLE conversation (
    app      bigint NOT NULL REFERENCES application ON DELETE CASCADE,
    id       bigint GENERATED ALWAYS AS IDENTITY,
    uid      uuid NOT NULL,
    end_user bigint NOT NULL,
    agent    bigint NOT NULL,
    alias    text,
    title    text,
    opening  text NOT NULL DEFAULT '',
    queue    bigint[] NOT NULL DEFAULT '{}',
    created  timestamptz NOT NULL DEFAULT now(),
    modified timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, end_user, alias),
    FOREIGN KEY (app, end_user) REFERENCES end_user (app, id) ON DELETE CASCADE,
    FOREIGN KEY (app, agent) REFERENCES agent (app, id) ON DELETE CASCADE
) WITH (fillfactor = 80);

CREATE INDEX conversation_recent ON conversation (app, end_user, modified DESC, id DESC);

-- A turn takes two ids, the question's and the answer's, while it holds its conversation: ids ascend in order.
CREATE SEQUENCE message_id INCREMENT BY 2;

-- An assistant's message is written by a run: same row, same id, same uid. ``status`` and what follows are the run's.
CREATE TABLE message (
    app          bigint NOT NULL,
    conversation bigint NOT NULL,
    id           bigint NOT NULL,
    uid          uuid NOT NULL,
    role         text NOT NULL CHECK (role IN ('user', 'assistant')),
    parts        jsonb NOT NULL,
    created      timestamptz NOT NULL DEFAULT now(),
    status       text CHECK (status IN ('live', 'complete', 'stopped', 'failed', 'interrupted')),
    worker       integer,
    reason       text,
    usage        jsonb,
    problem      jsonb,
    ended        timestamptz,
    PRIMARY KEY (app, conversation, id),
    UNIQUE (app, uid),
    FOREIGN KEY (app, conversation) REFERENCES conversation (app, id) ON DELETE CASCADE
) WITH (fillfactor = 80);

CREATE INDEX message_live ON message (worker) WHERE status = 'live';

-- Numbers of processes; see store/presence.py.
CREATE SEQUENCE worker_id AS integer CYCLE;

-- Idempotency-Keys, each with the run it began.
CREATE TABLE claim (
    app        bigint NOT NULL,
    credential bigint NOT NULL,
    end_user   bigint NOT NULL,
    scope      text NOT NULL,
    key        text NOT NULL,
    digest     bytea NOT NULL,
    run        uuid NOT NULL,
    expires    timestamptz NOT NULL,
    PRIMARY KEY (app, credential, end_user, scope, key),
    FOREIGN KEY (app, credential) REFERENCES credential (app, number) ON DELETE CASCADE,
    FOREIGN KEY (app, end_user) REFERENCES end_user (app, id) ON DELETE CASCADE
);

CREATE INDEX claim_expires ON claim (expires);
