-- A file that was fetched for a message goes with the message's conversation.

ALTER TABLE file
    ADD COLUMN conversation bigint,
    ADD FOREIGN KEY (app, conversation) REFERENCES conversation (app, id) ON DELETE CASCADE;

CREATE INDEX file_conversation ON file (app, conversation) WHERE conversation IS NOT NULL;
