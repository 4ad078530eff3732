-- Knowledge bases, their documents, and the passages that are searched.

CREATE TABLE knowledge (
    app      bigint NOT NULL REFERENCES application ON DELETE CASCADE,
    id       bigint GENERATED ALWAYS AS IDENTITY,
    uid      uuid NOT NULL,
    name     text NOT NULL,
    created  timestamptz NOT NULL DEFAULT now(),
    modified timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, name)
);

-- ``passages`` and ``length`` (words of all of them) are what ranking needs to know of the whole, summed up.
CREATE TABLE document (
    app       bigint NOT NULL,
    id        bigint GENERATED ALWAYS AS IDENTITY,
    uid       uuid NOT NULL,
    knowledge bigint NOT NULL,
    source    text NOT NULL,            -- path below ``root``, with forward slashes
    root      text NOT NULL,            -- folder that was given; empty for a file given by itself
    title     text NOT NULL,
    kind      text NOT NULL,
    digest    bytea NOT NULL,
    passages  integer NOT NULL,
    length    bigint NOT NULL,
    created   timestamptz NOT NULL DEFAULT now(),
    modified  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, id),
    UNIQUE (app, uid),
    UNIQUE (app, knowledge, source),
    FOREIGN KEY (app, knowledge) REFERENCES knowledge (app, id) ON DELETE CASCADE
);

-- ``words`` holds, beside the passage's own, the word ``@KNOWLEDGE``: a look into the index for a word *and* a
-- knowledge base costs what that base has of it, whatever other bases and applications have. No text gives a word
-- that begins with ``@``.
CREATE TABLE passage (
    app       bigint NOT NULL,
    id        bigint GENERATED ALWAYS AS IDENTITY,
    knowledge bigint NOT NULL,
    document  bigint NOT NULL,
    place     integer NOT NULL,
    heading   text NOT NULL,
    text      text NOT NULL,
    length    integer NOT NULL,
    words     tsvector NOT NULL,
    PRIMARY KEY (app, id),
    UNIQUE (app, document, place),
    FOREIGN KEY (app, document) REFERENCES document (app, id) ON DELETE CASCADE
);

-- New rows wait in the index's pending list, which every look-up reads from end to end; it is emptied after every
-- ingest, by autovacuum, or when it has grown to 4 MB.
CREATE INDEX passage_words ON passage USING gin (words);
