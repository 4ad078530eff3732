-- What derives from a conversation goes with it.

-- Which conversations' messages have an uploaded file: the file goes with the last of them.
CREATE TABLE attachment (
    app          bigint NOT NULL,
    conversation bigint NOT NULL,
    file         bigint NOT NULL,
    PRIMARY KEY (app, conversation, file),
    FOREIGN KEY (app, conversation) REFERENCES conversation (app, id) ON DELETE CASCADE,
    FOREIGN KEY (app, file) REFERENCES file (app, id) ON DELETE CASCADE
);
CREATE INDEX attachment_file ON attachment (app, file);

INSERT INTO attachment (app, conversation, file)
SELECT DISTINCT m.app, m.conversation, f.id
FROM message m
CROSS JOIN LATERAL jsonb_path_query(m.parts, '$[*] ? (@.type == "file").ref') AS p (ref)
JOIN conversation c ON c.app = m.app AND c.id = m.conversation
JOIN file f ON f.app = m.app AND f.end_user = c.end_user
    AND (f.key = p.ref #>> '{}' OR f.uid::text = p.ref #>> '{}' OR f.id::text = p.ref #>> '{}')
WHERE m.role = 'user' AND m.parts @> '[{"type": "file"}]';

-- A spoken message is its conversation's.
UPDATE file f SET conversation = m.conversation FROM message m
WHERE f.conversation IS NULL AND f.app = m.app AND f.key = 'voice/' || replace(m.uid::text, '-', '') || '.mp3';

-- What a kept answer is about.
ALTER TABLE claim
    ADD COLUMN conversation bigint,
    ADD COLUMN file bigint,
    ADD FOREIGN KEY (app, conversation) REFERENCES conversation (app, id) ON DELETE CASCADE,
    ADD FOREIGN KEY (app, file) REFERENCES file (app, id) ON DELETE CASCADE;
CREATE INDEX claim_conversation ON claim (app, conversation) WHERE conversation IS NOT NULL;
CREATE INDEX claim_file ON claim (app, file) WHERE file IS NOT NULL;
CREATE INDEX claim_run ON claim (app, run) WHERE run IS NOT NULL;

-- What an end user keeps, counted at every upload.
CREATE INDEX file_end_user ON file (app, end_user) INCLUDE (size);
