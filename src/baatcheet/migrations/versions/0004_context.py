"""The context: where a message stands in its tree, summaries of what was pruned, passages to recall, calibrations.

A message knows its depth and its branch, whose id is that of the branch's first message: whether a message is on
the path to a head is then a matter of a few branches, however long the conversation is.
"""

from importlib import import_module

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

# The eldest child goes on with its parent's branch, every other child begins one.
PLACE_EXISTING = """
WITH RECURSIVE tree AS (
    SELECT m.id, m.id AS branch_id, 0 AS depth FROM messages m
    WHERE NOT EXISTS (SELECT FROM messages p WHERE p.id = m.parent_id)
    UNION ALL
    SELECT m.id,
           CASE WHEN m.id = (SELECT c.id FROM messages c WHERE c.parent_id = t.id ORDER BY c.created_at, c.id LIMIT 1)
                THEN t.branch_id ELSE m.id END,
           t.depth + 1
    FROM tree t JOIN messages m ON m.parent_id = t.id
)
UPDATE messages m SET branch_id = tree.branch_id, depth = tree.depth FROM tree WHERE tree.id = m.id
"""

# Whoever writes a message holds its conversation's row, so no sibling can come in between.
PLACE_MESSAGE = """
CREATE FUNCTION place_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT m.branch_id, m.depth + 1 INTO NEW.branch_id, NEW.depth
    FROM messages m WHERE m.id = NEW.parent_id AND m.conversation_id = NEW.conversation_id;
    IF NOT FOUND THEN
        NEW.branch_id := NEW.id;
        NEW.depth := 0;
    ELSIF EXISTS (SELECT FROM messages m WHERE m.parent_id = NEW.parent_id) THEN
        NEW.branch_id := NEW.id;
    END IF;
    RETURN NEW;
END $$
"""

TABLES = """
CREATE TABLE context_summaries (
    id uuid CONSTRAINT pk_context_summaries PRIMARY KEY,
    conversation_id uuid NOT NULL
        CONSTRAINT fk_context_summaries_conversation_id REFERENCES conversations ON DELETE CASCADE,
    user_id uuid NOT NULL,
    upto_id uuid NOT NULL CONSTRAINT uq_context_summaries_upto_id UNIQUE,
    branch_id uuid NOT NULL,
    depth integer NOT NULL,
    sections jsonb NOT NULL,
    made_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_context_summaries_branch ON context_summaries (branch_id, depth DESC);
CREATE INDEX idx_context_summaries_conversation ON context_summaries (conversation_id);

CREATE TABLE recall_passages (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_recall_passages PRIMARY KEY,
    conversation_id uuid NOT NULL
        CONSTRAINT fk_recall_passages_conversation_id REFERENCES conversations ON DELETE CASCADE,
    user_id uuid NOT NULL,
    message_id uuid NOT NULL,
    branch_id uuid NOT NULL,
    depth integer NOT NULL,
    part integer NOT NULL,
    parts integer NOT NULL,
    role text NOT NULL,
    length integer NOT NULL,
    tokens integer NOT NULL,
    signals integer NOT NULL,
    ordinal bigint NOT NULL,
    total_length bigint NOT NULL,
    keys bigint[] NOT NULL,
    content text,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX uq_recall_passages_place ON recall_passages (branch_id, depth DESC, part);
CREATE INDEX idx_recall_passages_conversation ON recall_passages (conversation_id);
CREATE INDEX idx_recall_passages_keys ON recall_passages USING gin (keys) WITH (fastupdate = off);

CREATE TABLE passage_embeddings (
    passage_id bigint NOT NULL
        CONSTRAINT fk_passage_embeddings_passage_id REFERENCES recall_passages ON DELETE CASCADE,
    model text NOT NULL,
    user_id uuid NOT NULL,
    embedding real[] NOT NULL,
    CONSTRAINT pk_passage_embeddings PRIMARY KEY (passage_id, model)
);

CREATE TABLE token_calibrations (
    model text CONSTRAINT pk_token_calibrations PRIMARY KEY,
    state jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""

TENANT_TABLES = ("context_summaries", "recall_passages", "passage_embeddings")

# The branches on the way to `head`, and how deep each of them counts.
BRANCH_PATH = """
CREATE FUNCTION branch_path(tenant uuid, conversation uuid, head uuid)
RETURNS TABLE (branch uuid, last integer) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE chain AS (
        SELECT m.branch_id AS branch, m.depth AS last FROM messages m
        WHERE m.id = head AND m.conversation_id = conversation AND m.user_id = tenant
        UNION ALL
        SELECT p.branch_id, p.depth FROM chain c
        JOIN messages f ON f.id = c.branch
        JOIN messages p ON p.id = f.parent_id AND p.conversation_id = conversation
    )
    SELECT c.branch, c.last FROM chain c;
END $$
"""

# What a turn needs to know of a branch: its newest summary, the messages after that and, where these are fewer, the
# newest `keep`, newest first. `bounds` are {"messages", "tokens", "keep", "walk"}: at most so many messages and tokens are
# sent; a summary is looked for no further back than `walk` messages. A text that is larger than the whole budget comes
# with its middle already left out, and says so. A row without a count has one by its length.
BRANCH_HISTORY = """
CREATE FUNCTION branch_history(tenant uuid, conversation uuid, head uuid, bounds jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    most integer := (bounds ->> 'messages')::integer;
    budget integer := (bounds ->> 'tokens')::integer;
    keep integer := (bounds ->> 'keep')::integer;
    walk integer := (bounds ->> 'walk')::integer;
BEGIN
    RETURN (
    WITH RECURSIVE path AS (
        SELECT m.id, m.parent_id, m.depth, 0 AS after, 0::bigint AS tokens_after,
               coalesce(nullif(m.token_count, 0), octet_length(m.content) / 4) AS size, s.id AS summary
        FROM messages m LEFT JOIN context_summaries s ON s.upto_id = m.id AND s.user_id = tenant
        WHERE m.id = head AND m.conversation_id = conversation AND m.user_id = tenant
        UNION ALL
        SELECT m.id, m.parent_id, m.depth, p.after + 1, p.tokens_after + p.size,
               coalesce(nullif(m.token_count, 0), octet_length(m.content) / 4), coalesce(p.summary, s.id)
        FROM path p
        JOIN messages m ON m.id = p.parent_id AND m.conversation_id = conversation
        LEFT JOIN context_summaries s ON s.upto_id = m.id AND s.user_id = tenant
        WHERE (p.summary IS NULL OR p.after + 1 < keep) AND p.after + 1 < walk
    ), sent AS (
        SELECT p.* FROM path p
        WHERE p.after < most AND p.tokens_after <= budget AND (p.summary IS NULL OR p.after < keep)
    ), message AS (
        SELECT s.after, s.size > budget AND length(m.content) > budget * 16 AS trimmed, m.*,
               left(m.content, budget * 8) || E'\\n[…]\\n' || right(m.content, budget * 8) AS ends
        FROM sent s JOIN messages m ON m.id = s.id
    )
    SELECT json_build_object(
        'start', coalesce((SELECT min(s.depth) FROM sent s), (SELECT max(p.depth) + 1 FROM path p), 0),
        'summary', (SELECT json_build_object('last', s.depth, 'sections', s.sections, 'made_by', s.made_by)
                    FROM path p JOIN context_summaries s ON s.id = p.summary LIMIT 1),
        'messages', coalesce((
            SELECT json_agg(json_build_object(
                'id', m.id, 'role', m.role, 'tokens', m.token_count, 'trimmed', m.trimmed,
                'content', CASE WHEN m.trimmed THEN m.ends ELSE m.content END,
                'parts', CASE WHEN m.trimmed AND jsonb_typeof(m.parts -> 'content') = 'array' THEN jsonb_set(
                    m.parts, '{content}', jsonb_build_array(jsonb_build_object('type', 'text', 'text', m.ends)) || (
                        SELECT coalesce(jsonb_agg(e), '[]') FROM jsonb_array_elements(m.parts -> 'content') e
                        WHERE e ->> 'type' IS DISTINCT FROM 'text')) ELSE m.parts END
            ) ORDER BY m.after) FROM message m), '[]'::json)));
END $$
"""

# One conversation as a turn would find it; without `head`, at its own. NULL when it is not the tenant's.
CONTEXT_OF = """
CREATE FUNCTION context_of(tenant uuid, conversation uuid, head uuid, known uuid, known_version integer, bounds jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    talk conversations%ROWTYPE;
    at uuid;
BEGIN
    SELECT * INTO talk FROM conversations c WHERE c.id = conversation AND c.user_id = tenant;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    at := coalesce(head, talk.head_id);
    RETURN json_build_object(
        'title', talk.title, 'system_prompt', talk.system_prompt, 'model', talk.model, 'head', at,
        'version', coalesce(talk.context_version, 0),
        'history', CASE WHEN at = known AND talk.context_version = known_version THEN NULL
                        ELSE branch_history(tenant, conversation, at, bounds) END);
END $$
"""

# The passages on the way to `head`, and before depth `before`, that have any of `keys`: parallel arrays, one entry a
# passage, `matched` with a bit for each key that it has. At most `caps` of each key, the newest of `reach` of them (the
# index gives the oldest first), and `most` of all keys together, the first keys first. The inner query knows nothing but the key, so that the GIN index is the only way; a key's rows are of
# one conversation, since it is hashed with the conversation's id. `indexed` is the depth up to which the path is indexed,
# with the number of its passages and their terms.
RECALL_HITS = """
CREATE FUNCTION recall_hits(tenant uuid, conversation uuid, head uuid, before integer, keys bigint[], caps integer[],
                            reach integer, most integer)
RETURNS TABLE (indexed integer, passages bigint, total_length bigint, depths integer[], parts integer[],
               roles text[], times double precision[], lengths integer[], signals integer[], matched bigint[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    branches uuid[];
    lasts integer[];
BEGIN
    SELECT array_agg(p.branch), array_agg(p.last) INTO branches, lasts FROM branch_path(tenant, conversation, head) p;
    SELECT m.depth, m.ordinal, m.total_length INTO indexed, passages, total_length
    FROM unnest(branches, lasts) AS c(branch, last)
    CROSS JOIN LATERAL (
        SELECT p.depth, p.ordinal, p.total_length FROM recall_passages p
        WHERE p.branch_id = c.branch AND p.depth <= c.last ORDER BY p.depth DESC, p.part DESC LIMIT 1
    ) m ORDER BY m.depth DESC LIMIT 1;
    WITH hits AS MATERIALIZED (
        SELECT k.place, h.* FROM unnest(recall_hits.keys, recall_hits.caps) WITH ORDINALITY AS k(key, cap, place)
        CROSS JOIN LATERAL (
            SELECT n.* FROM (
                SELECT p.id, p.depth, p.part, p.role, p.created_at, p.length, p.signals
                FROM (SELECT f.* FROM recall_passages f WHERE f.keys @> ARRAY[k.key] OFFSET 0) p
                JOIN unnest(branches, lasts) AS c(branch, last) ON c.branch = p.branch_id AND p.depth <= c.last
                WHERE p.user_id = tenant AND p.depth < before
                LIMIT greatest(k.cap, reach)
            ) n
            ORDER BY n.depth DESC, n.part LIMIT k.cap
        ) h
        LIMIT most
    ), passage AS (
        SELECT max(h.depth) AS depth, max(h.part) AS part, max(h.role) AS role, max(h.created_at) AS created_at,
               max(h.length) AS length, max(h.signals) AS signals,
               bit_or(1::bigint << (h.place - 1)::integer) AS matched
        FROM hits h GROUP BY h.id
    )
    SELECT array_agg(p.depth), array_agg(p.part), array_agg(p.role), array_agg(extract(epoch FROM p.created_at)::double precision),
           array_agg(p.length), array_agg(p.signals), array_agg(p.matched)
    INTO depths, parts, roles, times, lengths, signals, matched FROM passage p;
    RETURN NEXT;
END $$
"""

# As before, but the history is that of `branch_history`, and the caller says which version of the context it knows.
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
               (i ->> 'known')::uuid AS known, (i ->> 'known_version')::integer AS known_version, i -> 'bounds' AS bounds
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
                'version', coalesce(talk.context_version, 0),
                'history', CASE WHEN head IS NULL OR (head = item.known AND talk.context_version = item.known_version)
                                THEN NULL ELSE branch_history(item.tenant, talk.id, head, item.bounds) END);
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
            'version', coalesce(talk.context_version, 0),
            'history', CASE WHEN head IS NULL OR (head = item.known AND talk.context_version = item.known_version)
                            THEN NULL ELSE branch_history(item.tenant, talk.id, head, item.bounds) END);
        RETURN NEXT;
    END LOOP;
END $$
"""

SIGNATURES = (
    "place_message()",
    "branch_path(uuid, uuid, uuid)",
    "branch_history(uuid, uuid, uuid, jsonb)",
    "context_of(uuid, uuid, uuid, uuid, integer, jsonb)",
    "recall_hits(uuid, uuid, uuid, integer, bigint[], integer[], integer, integer)",
    "open_turns(jsonb)",
)


def upgrade() -> None:
    op.execute("ALTER TABLE messages ADD COLUMN branch_id uuid, ADD COLUMN depth integer")
    # At every level of the tree the planner would join the whole table; with an index it is a few rows.
    op.execute("SET LOCAL enable_mergejoin = off")
    op.execute("SET LOCAL enable_hashjoin = off")
    op.execute(PLACE_EXISTING)
    op.execute("RESET enable_mergejoin")
    op.execute("RESET enable_hashjoin")
    op.execute("ALTER TABLE messages ALTER COLUMN branch_id SET NOT NULL, ALTER COLUMN depth SET NOT NULL")
    op.execute("CREATE INDEX idx_message_branch ON messages (branch_id, depth DESC)")
    op.execute("ALTER TABLE conversations ADD COLUMN context_version integer NOT NULL DEFAULT 0")
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")
    op.execute("DROP FUNCTION open_turns(jsonb)")
    op.execute("DROP FUNCTION recent_messages(uuid, uuid, uuid, integer, integer)")
    for function in (PLACE_MESSAGE, BRANCH_PATH, BRANCH_HISTORY, CONTEXT_OF, RECALL_HITS, OPEN_TURNS):
        op.execute(function)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION branch_path(uuid, uuid, uuid) TO {ROLE}")  # it reads as its caller
    op.execute(
        "CREATE TRIGGER place_message BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION place_message()"
    )


def downgrade() -> None:
    before = import_module("baatcheet.migrations.versions.0002_turn_functions")
    op.execute("DROP TRIGGER place_message ON messages")
    for signature in reversed(SIGNATURES):
        op.execute(f"DROP FUNCTION {signature}")
    for table in ("passage_embeddings", "recall_passages", "context_summaries", "token_calibrations"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE conversations DROP COLUMN context_version")
    op.execute("ALTER TABLE messages DROP COLUMN branch_id, DROP COLUMN depth")
    for function in (before.RECENT_MESSAGES, before.OPEN_TURNS):
        op.execute(function)
    for signature in ("open_turns(jsonb)", "recent_messages(uuid, uuid, uuid, integer, integer)"):
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
