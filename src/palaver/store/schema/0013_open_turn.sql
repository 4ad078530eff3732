-- The opening of a turn as a function: its steps are separate statements about one application, so that they need only
-- the machine that has it, and the number of a message can be drawn after its conversation has been locked.

-- Stores a question and its empty answer in the conversation with that id, uid or alias, or with ``_new`` in a new one
-- of that uid and alias. ``outcome`` is 'stored', or says why nothing is stored: there is no such conversation
-- ('unknown'), it is another agent's ('agent'), it has as many live runs as it may ('waiting'), the idempotency key is
-- taken ('claimed'), or the alias is ('taken').
CREATE FUNCTION open_turn(
    _app bigint, _end_user bigint, _id bigint, _uid uuid, _alias text, _new boolean,
    _agent bigint, _opening text, _variables jsonb, _max_live integer, _worker integer,
    _run uuid, _question uuid, _parts jsonb, _file_keys text[], _file_uids uuid[], _file_ids bigint[],
    _credential bigint, _scope text, _key text, _digest bytea, _key_ttl_s float8, _input jsonb,
    OUT outcome text, OUT stored_at timestamptz, OUT c conversation
) LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    stored_at := now();
    IF NOT _new THEN
        SELECT k.* INTO c FROM conversation k
        WHERE k.app = _app AND k.end_user = _end_user AND (k.id = _id OR k.uid = _uid OR k.alias = _alias)
        FOR NO KEY UPDATE;
        outcome := CASE
            WHEN c.id IS NULL THEN 'unknown'
            WHEN c.agent <> _agent THEN 'agent'
            WHEN cardinality(c.queue) >= _max_live THEN 'waiting'
        END;
    END IF;

    IF outcome = 'waiting' AND _key IS NOT NULL THEN
        PERFORM FROM claim k
        WHERE k.app = _app AND k.credential = _credential AND k.end_user = _end_user AND k.scope = _scope
            AND k.key = _key AND k.expires > stored_at;
        outcome := CASE WHEN FOUND THEN 'claimed' ELSE 'waiting' END;
    END IF;
    WHILE outcome IS NULL AND _key IS NOT NULL LOOP
        INSERT INTO claim (app, credential, end_user, scope, key, digest, run, expires)
        VALUES (_app, _credential, _end_user, _scope, _key, _digest, _run,
            stored_at + make_interval(secs => _key_ttl_s))
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        DELETE FROM claim k
        WHERE k.app = _app AND k.credential = _credential AND k.end_user = _end_user AND k.scope = _scope
            AND k.key = _key AND k.expires <= stored_at;
        IF NOT FOUND THEN
            outcome := 'claimed';
        END IF;
    END LOOP;
    IF outcome IS NOT NULL THEN
        RETURN;
    END IF;

    number := nextval('message_id') + 1;
    IF _new THEN
        INSERT INTO conversation AS k (app, uid, end_user, agent, alias, opening, variables, queue)
        VALUES (_app, _uid, _end_user, _agent, _alias, _opening, _variables, ARRAY[number])
        ON CONFLICT (app, end_user, alias) DO NOTHING RETURNING k.* INTO c;
    ELSE
        UPDATE conversation k
        SET queue = c.queue || number, modified = stored_at,
            opening = CASE c.opening WHEN '' THEN _opening ELSE c.opening END
        WHERE k.app = _app AND k.id = c.id RETURNING k.* INTO c;
    END IF;
    IF c.id IS NULL THEN
        DELETE FROM claim k
        WHERE k.app = _app AND k.credential = _credential AND k.end_user = _end_user AND k.scope = _scope
            AND k.key = _key;
        outcome := 'taken';
        RETURN;
    END IF;

    INSERT INTO message (app, conversation, id, uid, role, parts, status, worker, input, step)
    VALUES (_app, c.id, number - 1, _question, 'user', _parts, NULL, NULL, NULL, 0),
        (_app, c.id, number, _run, 'assistant', '[]', 'live', _worker, _input, (cardinality(c.queue) = 1)::integer);
    IF cardinality(_file_keys) > 0 THEN
        INSERT INTO attachment (app, conversation, file)
        SELECT f.app, c.id, f.id FROM file f
        WHERE f.app = _app AND f.end_user = _end_user
            AND (f.key = ANY (_file_keys) OR f.uid = ANY (_file_uids) OR f.id = ANY (_file_ids))
        ON CONFLICT DO NOTHING;
    END IF;
    outcome := 'stored';
END
$$;
