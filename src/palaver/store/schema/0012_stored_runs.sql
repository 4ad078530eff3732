-- What a run needs to be executed by any process, and how far it has got.
ALTER TABLE message
    ADD COLUMN input jsonb,                           -- core/ports/store.py, RunInput; null once the run has ended
    ADD COLUMN step smallint NOT NULL DEFAULT 0,      -- model calls begun; 0: the run waits for its turn
    ADD COLUMN pause jsonb;                           -- core/ports/store.py, Pause: the run waits for its pending calls
UPDATE message SET step = 1 WHERE status = 'live';

-- Earlier specs of agents, for runs that were accepted with them.
ALTER TABLE agent ADD COLUMN revision integer NOT NULL DEFAULT 1;
CREATE TABLE agent_revision (
    app      bigint NOT NULL,
    agent    bigint NOT NULL,
    revision integer NOT NULL,
    spec     jsonb NOT NULL,
    replaced timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, agent, revision),
    FOREIGN KEY (app, agent) REFERENCES agent (app, id) ON DELETE CASCADE
);
CREATE INDEX agent_revision_replaced ON agent_revision (replaced);
