"""The hot path of a turn: opening and closing, many at once, one call each.

Both functions run as the caller, outside row-level security, and take the tenant as an argument: every row
they touch is matched against it. A caller that says which head it knows is spared the history of that head: messages
never change, so what ends in the same message is the same branch. They take a JSON array and work it off in the order of the conversations'
ids, locking a conversation before anything of its turns, so that no two calls can wait for each other.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# In PL/pgSQL, because before PostgreSQL 18 an SQL function is planned anew at every call.
# The newest messages of one branch, newest first: at most `most` of them, and no more than it takes to pass
# `budget` tokens. A text that is larger than the whole budget comes with its middle already left out: what is
# sent here bounds what a turn reads, whatever the history weighs.
RECENT_MESSAGES = """
CREATE FUNCTION recent_messages(tenant uuid, conversation uuid, head uuid, most integer, budget integer)
RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
    WITH RECURSIVE path AS (
        SELECT m.id, m.parent_id, 1 AS depth, m.token_count::bigint AS total
        FROM messages m WHERE m.id = head AND m.conversation_id = conversation AND m.user_id = tenant
        UNION ALL
        SELECT m.id, m.parent_id, p.depth + 1, p.total + m.token_count
        FROM path p JOIN messages m ON m.id = p.parent_id AND m.conversation_id = conversation
        WHERE p.depth < most AND p.total <= budget
    )
    SELECT coalesce(json_agg(json_build_object(
        'id', m.id, 'role', m.role, 'parts', m.parts, 'tokens', m.token_count, 'content',
        CASE WHEN m.token_count > budget AND length(m.content) > budget * 16
             THEN left(m.content, budget * 8) || E'\\n[…]\\n' || right(m.content, budget * 8)
             ELSE m.content END
    ) ORDER BY path.depth), '[]'::json)
    FROM path JOIN messages m ON m.id = path.id);
END $$
"""

OPEN_TURNS = """
CREATE FUNCTION open_turns(items jsonb)
RETURNS TABLE (place integer, outcome text, data json) LANGUAGE plpgsql AS $$
DECLARE
    item record;
    talk conversations%ROWTYPE;
    other turns%ROWTYPE;
    head uuid;
    parent uuid;
    answer uuid;
    message jsonb;
    spent bigint;
BEGIN
    FOR item IN
        SELECT (o - 1)::integer AS place, i ->> 'turn' AS turn, (i ->> 'user')::uuid AS tenant,
               (i ->> 'conversation')::uuid AS conversation, i -> 'new' AS new, i ->> 'at' AS at,
               (i ->> 'answer')::uuid AS answer, (i ->> 'reply')::uuid AS reply, i ->> 'key' AS key,
               decode(i ->> 'fingerprint', 'hex') AS fingerprint, i ->> 'model' AS model,
               (i ->> 'process')::uuid AS process, i -> 'messages' AS messages,
               (i ->> 'known')::uuid AS known, (i ->> 'most')::integer AS most, (i ->> 'budget')::integer AS budget
        FROM jsonb_array_elements(items) WITH ORDINALITY AS a(i, o)
        ORDER BY i ->> 'conversation', o
    LOOP
        place := item.place;
        data := NULL;
        -- A call whose answer was lost is made again: it finds its own turn, and is told what it was told then.
        SELECT * INTO other FROM turns t WHERE t.id = item.turn::uuid AND t.user_id = item.tenant;
        IF FOUND THEN
            SELECT * INTO talk FROM conversations c WHERE c.id = other.conversation_id;
            answer := NULL;
            SELECT m.parent_id INTO head FROM messages m WHERE m.turn_id = other.id ORDER BY m.id LIMIT 1;
            IF NOT FOUND THEN
                answer := other.input_id;
                head := answer;
            END IF;
            outcome := 'opened';
            data := json_build_object(
                'title', talk.title, 'system_prompt', talk.system_prompt, 'model', talk.model, 'head', head,
                'answer', answer,
                'history', CASE WHEN head IS NULL OR head = item.known THEN '[]'::json
                                ELSE recent_messages(item.tenant, talk.id, head, item.most, item.budget) END);
            RETURN NEXT; CONTINUE;
        END IF;
        IF item.key IS NOT NULL THEN
            SELECT * INTO other FROM turns t WHERE t.user_id = item.tenant AND t.idempotency_key = item.key;
            IF FOUND THEN
                outcome := CASE WHEN other.fingerprint = item.fingerprint THEN 'joined' ELSE 'reused' END;
                data := json_build_object('turn', other.id);
                RETURN NEXT; CONTINUE;
            END IF;
        END IF;
        head := NULL;
        talk := NULL;
        IF jsonb_typeof(item.new) = 'object' THEN
            IF item.new ->> 'project' IS NOT NULL AND NOT EXISTS (
                SELECT FROM projects p WHERE p.id = (item.new ->> 'project')::uuid AND p.user_id = item.tenant
            ) THEN
                outcome := 'no-project'; RETURN NEXT; CONTINUE;
            END IF;
            INSERT INTO conversations (id, user_id, project_id, title, system_prompt, model)
            VALUES (item.conversation, item.tenant, (item.new ->> 'project')::uuid, item.new ->> 'title',
                    item.new ->> 'system_prompt', item.new ->> 'model')
            RETURNING * INTO talk;
        ELSIF item.conversation IS NOT NULL THEN
            -- Not waited for: one conversation that somebody holds must not hold up the others of this call.
            SELECT * INTO talk FROM conversations c
            WHERE c.id = item.conversation AND c.user_id = item.tenant FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                outcome := CASE WHEN EXISTS (
                    SELECT FROM conversations c WHERE c.id = item.conversation AND c.user_id = item.tenant
                ) THEN 'locked' ELSE 'no-conversation' END;
                RETURN NEXT; CONTINUE;
            END IF;
            head := talk.head_id;
        END IF;
        answer := item.answer;
        IF answer IS NULL AND item.at = 'head' AND head IS NOT NULL AND jsonb_array_length(item.messages) = 1 THEN
            -- What a client sends again after its turn has ended without a word is the message that is there.
            SELECT m.id INTO answer FROM messages m
            WHERE m.id = head AND m.user_id = item.tenant AND m.role = item.messages -> 0 ->> 'role'
              AND m.content = item.messages -> 0 ->> 'content'
              AND m.parts IS NOT DISTINCT FROM nullif(item.messages -> 0 -> 'parts', 'null')
              AND EXISTS (SELECT FROM turns t WHERE t.id = m.turn_id AND t.input_id = m.id AND t.status <> 'running');
        END IF;
        IF answer IS NOT NULL THEN  -- a new reply to a message that is there
            SELECT m.id INTO head FROM messages m
            WHERE m.id = answer AND m.conversation_id = talk.id AND m.user_id = item.tenant;
            IF NOT FOUND THEN
                outcome := 'no-message'; RETURN NEXT; CONTINUE;
            END IF;
        ELSIF item.at = 'root' THEN
            head := NULL;
        ELSIF item.at IS NOT NULL AND item.at <> 'head' THEN
            SELECT m.id INTO head FROM messages m
            WHERE m.id = item.at::uuid AND m.conversation_id = talk.id AND m.user_id = item.tenant;
            IF NOT FOUND THEN
                outcome := 'no-message'; RETURN NEXT; CONTINUE;
            END IF;
        END IF;
        parent := head;
        INSERT INTO turns (id, user_id, conversation_id, input_id, reply_id, model, process_id, idempotency_key, fingerprint)
        VALUES (item.turn::uuid, item.tenant, talk.id,
                coalesce(answer, (item.messages -> -1 ->> 'id')::uuid), item.reply,
                coalesce(item.model, talk.model), item.process, item.key, item.fingerprint)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            -- Another call won: by the same key, or by a turn that runs in this conversation.
            SELECT * INTO other FROM turns t WHERE t.user_id = item.tenant AND t.idempotency_key = item.key;
            IF FOUND THEN
                outcome := CASE WHEN other.fingerprint = item.fingerprint THEN 'joined' ELSE 'reused' END;
                IF jsonb_typeof(item.new) = 'object' THEN
                    DELETE FROM conversations c WHERE c.id = item.conversation AND c.user_id = item.tenant;
                END IF;
            ELSE
                SELECT * INTO other FROM turns t WHERE t.conversation_id = talk.id AND t.status = 'running';
                outcome := 'busy';
            END IF;
            data := json_build_object('turn', other.id);
            RETURN NEXT; CONTINUE;
        END IF;
        spent := 0;
        IF talk.id IS NOT NULL THEN
            IF answer IS NULL THEN
                FOR message IN SELECT e FROM jsonb_array_elements(item.messages) AS e LOOP
                    INSERT INTO messages (id, conversation_id, user_id, parent_id, turn_id, role, content, parts, token_count)
                    VALUES ((message ->> 'id')::uuid, talk.id, item.tenant, parent, item.turn::uuid, message ->> 'role',
                            message ->> 'content', nullif(message -> 'parts', 'null'), (message ->> 'tokens')::integer);
                    parent := (message ->> 'id')::uuid;
                    spent := spent + (message ->> 'tokens')::integer;
                END LOOP;
            END IF;
            -- Without updated_at, which is indexed, this is an update within the page; the close brings it up to date.
            UPDATE conversations c
            SET head_id = parent, token_total = c.token_total + spent,
                message_count = c.message_count + CASE WHEN answer IS NULL THEN jsonb_array_length(item.messages) ELSE 0 END
            WHERE c.id = talk.id;
        END IF;
        outcome := 'opened';
        data := json_build_object(
            'title', talk.title, 'system_prompt', talk.system_prompt, 'model', talk.model, 'head', head, 'answer', answer,
            'history', CASE WHEN head IS NULL OR head = item.known THEN '[]'::json
                            ELSE recent_messages(item.tenant, talk.id, head, item.most, item.budget) END);
        RETURN NEXT;
    END LOOP;
END $$
"""

# A turn is closed once: whoever comes second is told 'lost'. An item with `"record": true` was never opened
# (a stateless request): its row is written here, for the usage.
CLOSE_TURNS = """
CREATE FUNCTION close_turns(items jsonb)
RETURNS TABLE (place integer, outcome text) LANGUAGE plpgsql AS $$
DECLARE
    item record;
    turn turns%ROWTYPE;
BEGIN
    FOR item IN
        SELECT (o - 1)::integer AS place, (i ->> 'turn')::uuid AS turn, (i ->> 'user')::uuid AS tenant,
               (i ->> 'conversation')::uuid AS conversation, i ->> 'status' AS status,
               (i ->> 'record')::boolean AS record, (i ->> 'free')::boolean AS free, i ->> 'model' AS model, i ->> 'answered_by' AS answered_by,
               i ->> 'finish_reason' AS finish_reason, nullif(i -> 'error', 'null') AS error,
               (i ->> 'prompt_tokens')::integer AS prompt_tokens, (i ->> 'completion_tokens')::integer AS completion_tokens,
               nullif(i -> 'usage', 'null') AS usage, nullif(i -> 'receipt', 'null') AS receipt,
               nullif(i -> 'reply', 'null') AS reply, i -> 'message' AS message, (i ->> 'flushed')::boolean AS flushed,
               (i ->> 'created')::double precision AS created, i ->> 'events' AS events,
               CASE WHEN jsonb_typeof(i -> 'lengths') = 'array'
                    THEN ARRAY(SELECT jsonb_array_elements_text(i -> 'lengths')::integer) END AS lengths
        FROM jsonb_array_elements(items) WITH ORDINALITY AS a(i, o)
        ORDER BY i ->> 'conversation', o
    LOOP
        place := item.place;
        IF item.record THEN
            INSERT INTO turns (id, user_id, status, model, answered_by, finish_reason, error, prompt_tokens,
                               completion_tokens, usage, created_at, ended_at)
            SELECT item.turn, item.tenant, item.status, item.model, item.answered_by, item.finish_reason, item.error,
                   item.prompt_tokens, item.completion_tokens, item.usage, to_timestamp(item.created), clock_timestamp()
            WHERE EXISTS (SELECT FROM users u WHERE u.id = item.tenant)
            ON CONFLICT DO NOTHING;
            outcome := 'closed'; RETURN NEXT; CONTINUE;
        END IF;
        IF item.conversation IS NOT NULL THEN
            PERFORM FROM conversations c
            WHERE c.id = item.conversation AND c.user_id = item.tenant FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND AND EXISTS (
                SELECT FROM conversations c WHERE c.id = item.conversation AND c.user_id = item.tenant
            ) THEN
                outcome := 'locked'; RETURN NEXT; CONTINUE;
            END IF;
        END IF;
        UPDATE turns t
        SET status = item.status, answered_by = item.answered_by, finish_reason = item.finish_reason, error = item.error,
            prompt_tokens = item.prompt_tokens, completion_tokens = item.completion_tokens, usage = item.usage,
            -- A turn that failed without a word, for a reason that may pass, cost nothing: its key may be tried again.
            idempotency_key = CASE WHEN item.free THEN NULL ELSE t.idempotency_key END,
            receipt = item.receipt, reply = item.reply, event_lengths = item.lengths, events = item.events, ended_at = clock_timestamp()
        WHERE t.id = item.turn AND t.user_id = item.tenant AND t.status = 'running'
        RETURNING * INTO turn;
        IF NOT FOUND THEN
            outcome := 'lost'; RETURN NEXT; CONTINUE;
        END IF;
        IF jsonb_typeof(item.message) = 'object' AND turn.conversation_id IS NOT NULL THEN
            INSERT INTO messages (id, conversation_id, user_id, parent_id, turn_id, role, content, parts, model,
                                  token_count, finish_reason)
            VALUES (turn.reply_id, turn.conversation_id, item.tenant, turn.input_id, turn.id, 'assistant',
                    item.message ->> 'content', nullif(item.message -> 'parts', 'null'), item.answered_by,
                    (item.message ->> 'tokens')::integer, item.finish_reason);
            UPDATE conversations c
            SET head_id = turn.reply_id, updated_at = clock_timestamp(),
                token_total = c.token_total + (item.message ->> 'tokens')::integer, message_count = c.message_count + 1
            WHERE c.id = turn.conversation_id;
        ELSIF turn.conversation_id IS NOT NULL THEN
            UPDATE conversations c SET updated_at = clock_timestamp() WHERE c.id = turn.conversation_id;
        END IF;
        IF item.flushed THEN
            DELETE FROM turn_deltas d WHERE d.turn_id = turn.id;
        END IF;
        outcome := 'closed';
        RETURN NEXT;
    END LOOP;
END $$
"""

SIGNATURES = (
    "close_turns(jsonb)",
    "open_turns(jsonb)",
    "recent_messages(uuid, uuid, uuid, integer, integer)",
)


def upgrade() -> None:
    for function in (RECENT_MESSAGES, OPEN_TURNS, CLOSE_TURNS):
        op.execute(function)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")


def downgrade() -> None:
    for signature in SIGNATURES:
        op.execute(f"DROP FUNCTION {signature}")
