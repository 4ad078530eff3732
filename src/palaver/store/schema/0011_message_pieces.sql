-- The growth of a message since it was last saved. The pieces of a message continue its column "parts"; reading joins
-- them. A short answer is stored whole when it ends, and its pieces are deleted; those of a long one are folded into
-- "parts" after its end.
CREATE TABLE message_piece (
    app          bigint NOT NULL,
    conversation bigint NOT NULL,
    message      bigint NOT NULL,
    start        bigint NOT NULL,      -- the cursor after which it begins
    continues    boolean NOT NULL,     -- its first part's text continues the last part before it
    parts        jsonb NOT NULL,
    PRIMARY KEY (app, conversation, message, start),
    FOREIGN KEY (app, conversation, message) REFERENCES message (app, conversation, id) ON DELETE CASCADE
);

-- Whether the message has ended and still has pieces.
ALTER TABLE message ADD COLUMN unfolded boolean NOT NULL DEFAULT false;
CREATE INDEX message_unfolded ON message (app, conversation, id) WHERE unfolded;
