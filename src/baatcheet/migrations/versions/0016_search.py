"""The index of search: segments of documents with the terms that they have, and what is not yet in one.

Whoever writes a message or a title leaves a row in `search_fresh`, which makes it searchable in the same commit; a
worker moves such rows into segments. A deleted conversation leaves one in `search_removed`, until no segment has any of
it. All that exists when this is applied is moved by the workers, too: a user's row of the kind "everything" stands for it.
"""

import re

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

# Each segment's rows go with it. The numbers of segments are never used again: processes remember what they have read.
TABLES = """
CREATE TABLE search_fresh (
    user_id uuid NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL CONSTRAINT ck_search_fresh_kind CHECK (kind IN ('message', 'title', 'everything')),
    id uuid NOT NULL,
    conversation_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_search_fresh PRIMARY KEY (user_id, place)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE search_removed (
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    CONSTRAINT pk_search_removed PRIMARY KEY (user_id, conversation_id)
);

CREATE SEQUENCE search_segment_seq;

CREATE TABLE search_segments (
    user_id uuid NOT NULL CONSTRAINT fk_search_segments_user_id REFERENCES users ON DELETE CASCADE,
    segment bigint NOT NULL,
    count integer NOT NULL,
    occurrences bigint NOT NULL,
    oldest timestamptz NOT NULL,
    newest timestamptz NOT NULL,
    created bytea NOT NULL,
    conversations bytea NOT NULL,
    conversation_ids bytea NOT NULL,
    CONSTRAINT pk_search_segments PRIMARY KEY (user_id, segment)
);
ALTER TABLE search_segments ALTER created SET STORAGE EXTERNAL, ALTER conversations SET STORAGE EXTERNAL,
    ALTER conversation_ids SET STORAGE EXTERNAL;

CREATE TABLE search_documents (
    user_id uuid NOT NULL,
    segment bigint NOT NULL,
    block integer NOT NULL,
    ids uuid[] NOT NULL,
    parts bigint[] NOT NULL,
    CONSTRAINT pk_search_documents PRIMARY KEY (user_id, segment, block),
    CONSTRAINT fk_search_documents_user_id_segment FOREIGN KEY (user_id, segment)
        REFERENCES search_segments ON DELETE CASCADE
);

CREATE TABLE search_terms (
    user_id uuid NOT NULL,
    segment bigint NOT NULL,
    first text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT idx_message_content_search PRIMARY KEY (user_id, segment, first),
    CONSTRAINT fk_search_terms_user_id_segment FOREIGN KEY (user_id, segment)
        REFERENCES search_segments ON DELETE CASCADE
);
ALTER TABLE search_terms ALTER payload SET STORAGE EXTERNAL;

CREATE TABLE search_words (
    user_id uuid NOT NULL,
    initial text COLLATE "C" NOT NULL,
    segment bigint NOT NULL,
    words text NOT NULL,
    CONSTRAINT pk_search_words PRIMARY KEY (user_id, initial, segment),
    CONSTRAINT fk_search_words_user_id_segment FOREIGN KEY (user_id, segment)
        REFERENCES search_segments ON DELETE CASCADE
);

CREATE TABLE search_pieces (
    message_id uuid NOT NULL CONSTRAINT fk_search_pieces_message_id REFERENCES messages ON DELETE CASCADE,
    part integer NOT NULL,
    user_id uuid NOT NULL,
    content text NOT NULL,
    CONSTRAINT pk_search_pieces PRIMARY KEY (message_id, part)
);

CREATE TABLE search_leases (
    user_id uuid CONSTRAINT pk_search_leases PRIMARY KEY
        CONSTRAINT fk_search_leases_user_id REFERENCES users ON DELETE CASCADE,
    until timestamptz NOT NULL
);
"""

# They run as whoever changes the row, a tenant included. A user who goes takes along what no reference binds to them;
# their conversations go after that, so that nothing is left of those.
TRIGGERS = """
CREATE FUNCTION search_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_fresh (user_id, kind, id, conversation_id)
    VALUES (NEW.user_id, 'message', NEW.id, NEW.conversation_id);
    RETURN NULL;
END $$;
CREATE TRIGGER search_message AFTER INSERT ON messages FOR EACH ROW
    WHEN (NEW.content <> '') EXECUTE FUNCTION search_message();

CREATE FUNCTION search_title() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_fresh (user_id, kind, id, conversation_id) VALUES (NEW.user_id, 'title', NEW.id, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER search_title AFTER INSERT ON conversations FOR EACH ROW
    WHEN (NEW.title <> '') EXECUTE FUNCTION search_title();
CREATE TRIGGER search_new_title AFTER UPDATE OF title ON conversations FOR EACH ROW
    WHEN (NEW.title <> OLD.title AND NEW.title <> '') EXECUTE FUNCTION search_title();

CREATE FUNCTION search_remove() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_removed (user_id, conversation_id)
    SELECT u.id, OLD.id FROM users u WHERE u.id = OLD.user_id ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER search_remove AFTER DELETE ON conversations FOR EACH ROW EXECUTE FUNCTION search_remove();

CREATE FUNCTION search_forget_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_fresh f WHERE f.user_id = OLD.id;
    DELETE FROM search_removed r WHERE r.user_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER search_forget_user AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION search_forget_user();
"""

# All that one query needs to know, of one moment (a stable function's queries share their caller's snapshot). Rows of
# several kinds, told by `what`:
#  0 a segment: its number of documents; `a` times, `b` conversations, `c` their ids, unless it is one of `known`
#  1 the chunk of a segment that has the nth of `terms`, if any has
#  2 a chunk of a segment that has terms beginning with "w" and the nth of `prefixes`
#  3 a fresh document of the newest hundred: number 1 when it is a title; without its text when it is one of `analysed`,
#    and, with number 2, when it has more than 60,000 bytes or the newer ones' texts are enough for one query
#  4 the conversations that are deleted, 16 bytes each
#  5 the conversations within the scope, where there is one, 16 bytes each
#  6 how many more rows are fresh, a thousand at most
# A posting of its own chunk is read only if it is the one that was asked for: it may be large.
LOOK_UP = """
CREATE FUNCTION search_look_up(tenant uuid, terms text[], prefixes text[], known bigint[], analysed uuid[],
                               scoped boolean, conversation uuid, project uuid, is_archived boolean, with_tag text)
RETURNS TABLE (what integer, segment bigint, number integer, a bytea, b bytea, c bytea, id uuid, talk uuid,
               created_at timestamptz, role text, model text, content text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    live bigint[];
BEGIN
    RETURN QUERY
    SELECT 0, s.segment, s.count, k.created, k.conversations, k.conversation_ids, NULL::uuid, NULL::uuid,
           NULL::timestamptz, NULL::text, NULL::text, NULL::text
    FROM search_segments s
    LEFT JOIN LATERAL (SELECT s.created, s.conversations, s.conversation_ids WHERE s.segment <> ALL (known)) k ON true
    WHERE s.user_id = tenant;
    live := ARRAY(SELECT s.segment FROM search_segments s WHERE s.user_id = tenant);

    RETURN QUERY
    SELECT 1, s.segment, t.n::integer, p.payload, NULL::bytea, NULL::bytea, NULL::uuid, NULL::uuid,
           NULL::timestamptz, NULL::text, NULL::text, NULL::text
    FROM unnest(live) AS s(segment)
    CROSS JOIN unnest(terms) WITH ORDINALITY AS t(term, n)
    CROSS JOIN LATERAL (
        SELECT x.first, x.payload FROM search_terms x
        WHERE x.user_id = tenant AND x.segment = s.segment AND x.first <= t.term COLLATE "C"
        ORDER BY x.first DESC LIMIT 1
    ) p
    WHERE p.first = t.term OR octet_length(p.payload) < 2000;

    IF cardinality(prefixes) > 0 THEN
        RETURN QUERY
        SELECT 2, s.segment, t.n::integer, p.payload, NULL::bytea, NULL::bytea, NULL::uuid, NULL::uuid,
               NULL::timestamptz, NULL::text, NULL::text, NULL::text
        FROM unnest(live) AS s(segment)
        CROSS JOIN unnest(prefixes) WITH ORDINALITY AS t(prefix, n)
        CROSS JOIN LATERAL (
            (SELECT y.payload FROM (
                SELECT x.payload FROM search_terms x
                WHERE x.user_id = tenant AND x.segment = s.segment AND x.first < ('w' || t.prefix) COLLATE "C"
                ORDER BY x.first DESC LIMIT 1
            ) y WHERE octet_length(y.payload) < 2000)
            UNION ALL
            (SELECT x.payload FROM search_terms x
             WHERE x.user_id = tenant AND x.segment = s.segment AND x.first >= ('w' || t.prefix) COLLATE "C"
               AND x.first < ('w' || t.prefix || U&'\\+10FFFF') COLLATE "C"
             ORDER BY x.first LIMIT 100)
        ) p;
    END IF;

    RETURN QUERY
    SELECT 3, NULL::bigint,
           CASE WHEN f.kind = 'title' THEN 1 WHEN f.size > 60000 OR f.size > 0 AND f.before > 100000 THEN 2
                ELSE 0 END, NULL::bytea, NULL::bytea, NULL::bytea, f.id, f.talk,
           f.created_at, f.role, f.model,
           CASE WHEN f.kind = 'title' THEN f.title WHEN f.size > 0 THEN m.content END
    FROM (
        SELECT f.*, sum(coalesce(f.size, 0)) OVER (ORDER BY f.place DESC) - f.size AS before
        FROM (
            SELECT f.place, f.kind, f.id, c.id AS talk, coalesce(m.created_at, c.created_at) AS created_at, m.role,
                   m.model, c.title, CASE WHEN f.id = ANY (analysed) THEN 0 ELSE octet_length(m.content) END AS size
            FROM (SELECT f.* FROM search_fresh f WHERE f.user_id = tenant AND f.kind <> 'everything'
                  ORDER BY f.place DESC LIMIT 100) f
            JOIN conversations c ON c.id = f.conversation_id AND c.user_id = tenant
            LEFT JOIN messages m ON f.kind = 'message' AND m.id = f.id AND m.conversation_id = c.id
                AND m.user_id = tenant
            WHERE f.kind = 'title' OR m.id IS NOT NULL
        ) f
    ) f LEFT JOIN messages m ON f.kind = 'message' AND m.id = f.id AND f.size BETWEEN 1 AND 60000
        AND f.before <= 100000;

    RETURN QUERY
    SELECT 4, NULL::bigint, NULL::integer, string_agg(uuid_send(r.id), ''), NULL::bytea, NULL::bytea, NULL::uuid,
           NULL::uuid, NULL::timestamptz, NULL::text, NULL::text, NULL::text
    FROM (SELECT x.conversation_id AS id FROM search_removed x WHERE x.user_id = tenant
          UNION ALL
          SELECT x.id FROM conversations x WHERE x.user_id = tenant AND x.deleted_at IS NOT NULL) r;

    IF scoped THEN
        what := 5;
        IF conversation IS NOT NULL THEN
            a := (SELECT string_agg(uuid_send(x.id), '') FROM conversations x
                  WHERE x.id = conversation AND x.user_id = tenant AND (project IS NULL OR x.project_id = project)
                    AND (is_archived IS NULL OR x.archived = is_archived)
                    AND (with_tag IS NULL OR with_tag = ANY (x.tags)));
        ELSIF with_tag IS NOT NULL THEN
            a := (SELECT string_agg(uuid_send(x.id), '') FROM conversations x
                  WHERE x.user_id = tenant AND x.tags <> '{}' AND with_tag = ANY (x.tags)
                    AND (project IS NULL OR x.project_id = project)
                    AND (is_archived IS NULL OR x.archived = is_archived));
        ELSIF project IS NOT NULL THEN
            a := (SELECT string_agg(uuid_send(x.id), '') FROM conversations x
                  WHERE x.user_id = tenant AND x.project_id = project
                    AND (is_archived IS NULL OR x.archived = is_archived));
        ELSE
            a := (SELECT string_agg(uuid_send(x.id), '') FROM conversations x
                  WHERE x.user_id = tenant AND x.archived = is_archived);
        END IF;
        RETURN NEXT;
        a := NULL;
    END IF;

    what := 6;
    number := (SELECT count(*) FROM (
        SELECT FROM search_fresh f WHERE f.user_id = tenant ORDER BY f.place DESC OFFSET 100 LIMIT 1000) f)
        + coalesce((SELECT (f.kind = 'everything')::integer FROM search_fresh f WHERE f.user_id = tenant
                    ORDER BY f.place LIMIT 1), 0);
    RETURN NEXT;
END $$
"""

# The documents at places in segments, as far as they are there and not deleted. 2147483648 and more is a title's part.
DOCUMENTS_AT = """
CREATE FUNCTION search_documents_at(tenant uuid, segments bigint[], numbers integer[])
RETURNS TABLE (nth integer, id uuid, part bigint, talk uuid, title text, role text, model text,
               created_at timestamptz, content text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT p.n::integer, k.id, k.part, c.id, c.title, m.role, m.model, coalesce(m.created_at, c.created_at),
           CASE WHEN k.part >= 2147483648 THEN c.title ELSE coalesce(s.content, left(m.content, 8000)) END
    FROM unnest(segments, numbers) WITH ORDINALITY AS p(segment, number, n)
    JOIN search_documents d ON d.user_id = tenant AND d.segment = p.segment AND d.block = p.number / 64
    CROSS JOIN LATERAL (SELECT d.ids[p.number % 64 + 1] AS id, d.parts[p.number % 64 + 1] AS part) k
    LEFT JOIN messages m ON k.part < 2147483648 AND m.id = k.id AND m.user_id = tenant
    LEFT JOIN search_pieces s ON k.part < 2147483648 AND s.message_id = k.id AND s.part = k.part
    JOIN conversations c ON c.id = CASE WHEN k.part >= 2147483648 THEN k.id ELSE m.conversation_id END
        AND c.user_id = tenant AND c.deleted_at IS NULL
    WHERE k.part = 0 OR k.part >= 2147483648 OR s.part IS NOT NULL;
END $$
"""

TENANT_TABLES = {
    "search_fresh": "INSERT",
    "search_removed": "INSERT",
    "search_segments": "SELECT",
    "search_documents": "SELECT",
    "search_terms": "SELECT",
    "search_words": "SELECT",
    "search_pieces": "SELECT",
    "search_leases": "",
}
SIGNATURES = (
    "search_look_up(uuid, text[], text[], bigint[], uuid[], boolean, uuid, uuid, boolean, text)",
    "search_documents_at(uuid, bigint[], integer[])",
)


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table, privileges in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        if privileges:
            op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")
    for function in (LOOK_UP, DOCUMENTS_AT):
        op.execute(function)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    # Whoever writes waits behind this, so it is short, and begun again where it does not get the tables in time.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE users, conversations, messages IN SHARE ROW EXCLUSIVE MODE")
    for statement in re.split(r";\n+(?=CREATE )", TRIGGERS.strip().rstrip(";")):
        op.execute(statement)
    op.execute("INSERT INTO search_fresh (user_id, kind, id) SELECT u.id, 'everything', u.id FROM users u")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE users, conversations, messages IN SHARE ROW EXCLUSIVE MODE")
    for table, triggers in {
        "users": ("search_forget_user",),
        "conversations": ("search_title", "search_new_title", "search_remove"),
        "messages": ("search_message",),
    }.items():
        for trigger in triggers:
            op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in (
        "search_message()",
        "search_title()",
        "search_remove()",
        "search_forget_user()",
        *SIGNATURES,
    ):
        op.execute(f"DROP FUNCTION {function}")
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table} CASCADE")
    op.execute("DROP SEQUENCE search_segment_seq")
