-- Tokens end with the secret that their credential had when they were issued, and with what they came from.

-- Each new secret, and each time of being disabled, begins a generation. While the secret before is still good, so are
-- the tokens of its generation.
ALTER TABLE credential ADD COLUMN generation integer NOT NULL DEFAULT 1;
ALTER TABLE credential ADD COLUMN previous_generation integer;

-- A family is everything that comes from one code. A code that has been used stays, to be known when it comes again.
ALTER TABLE token ADD COLUMN generation integer NOT NULL DEFAULT 1;
ALTER TABLE token ADD COLUMN family uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE token ADD COLUMN used boolean NOT NULL DEFAULT false;
ALTER TABLE token ALTER COLUMN generation DROP DEFAULT;
ALTER TABLE token ALTER COLUMN family DROP DEFAULT;
CREATE INDEX token_family ON token (app, family);
