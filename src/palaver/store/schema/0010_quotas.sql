-- Codes and tokens of a credential are counted, those that are good apart from those that were used.

CREATE INDEX token_credential ON token (app, credential, kind, used, expires);
