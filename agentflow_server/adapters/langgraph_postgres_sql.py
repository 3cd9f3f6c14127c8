"""SQL for LangGraph's checkpoints in PostgreSQL: the same rows as `AsyncPostgresSaver` writes."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from typing import NamedTuple

# The row stays locked until the statement has committed: who takes the run over waits for that.
_HELD = "SELECT 1 FROM runs WHERE run_id = %(run_id)s AND lease = %(lease)s FOR SHARE"
_FREE = "SELECT 1"


class Fenced(NamedTuple):
    """A statement that gives a row when it was allowed to do its work, in both forms."""

    held: str
    """Of a run: only while its lease holds."""
    free: str
    """Of no run."""


def _fence(parts: str) -> Fenced:
    """`parts` are further members of a WITH, which take what they do from `fence`."""
    statements = (
        f"WITH fence AS ({fence}), {parts} SELECT 1 FROM fence" for fence in (_HELD, _FREE)
    )
    return Fenced(*statements)


# Of our own schema: a table of that name elsewhere in the search path is another program's.
FIND_TABLES = "SELECT to_regclass(quote_ident(current_schema()::text) || '.checkpoint_migrations')"
FIND_VERSION = "SELECT max(v) FROM checkpoint_migrations"

# A version of a channel never changes, so one that is there is the same.
PUT = _fence("""
    blobs AS (
        INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
        SELECT %(thread_id)s, %(checkpoint_ns)s, new.* FROM fence, unnest(
            %(channels)s::text[], %(versions)s::text[], %(types)s::text[], %(blobs)b::bytea[]
        ) AS new
        ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
    ), saved AS (
        INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,
            checkpoint, metadata)
        SELECT %(thread_id)s, %(checkpoint_ns)s, %(checkpoint_id)s, %(parent_id)s,
            %(checkpoint)s, %(metadata)s FROM fence
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE
        SET checkpoint = excluded.checkpoint, metadata = excluded.metadata
    )""")

_PUT_WRITES = """
    saved AS (
        INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path,
            idx, channel, type, blob)
        SELECT %(thread_id)s, %(checkpoint_ns)s, %(checkpoint_id)s, %(task_id)s, %(task_path)s,
            new.* FROM fence, unnest(
            %(places)s::int[], %(channels)s::text[], %(types)s::text[], %(blobs)b::bytea[]
        ) AS new
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO """
PUT_WRITES = _fence(_PUT_WRITES + "NOTHING)")
REPLACE_WRITES = _fence(
    _PUT_WRITES
    + "UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob)"
)

DELETE_THREAD = _fence("""
    gone AS (DELETE FROM checkpoints USING fence WHERE thread_id = %(thread_id)s),
    gone_blobs AS (DELETE FROM checkpoint_blobs USING fence WHERE thread_id = %(thread_id)s),
    gone_writes AS (DELETE FROM checkpoint_writes USING fence WHERE thread_id = %(thread_id)s)""")

# All parts see the rows as they were before: what is gone must be excluded where others are left.
DELETE_RUN = _fence("""
    old AS (
        SELECT checkpoint_ns, checkpoint_id, channel, version,
            coalesce(metadata ->> 'run_id' = %(forgotten)s, false) AS forgotten
        FROM checkpoints LEFT JOIN LATERAL
            jsonb_each_text(checkpoint -> 'channel_versions') AS used (channel, version) ON true
        WHERE thread_id = %(thread_id)s
    ), gone AS (
        DELETE FROM checkpoints USING fence WHERE thread_id = %(thread_id)s
            AND metadata ->> 'run_id' = %(forgotten)s
    ), gone_writes AS (
        DELETE FROM checkpoint_writes USING fence WHERE thread_id = %(thread_id)s
            AND (checkpoint_ns, checkpoint_id) IN (
                SELECT checkpoint_ns, checkpoint_id FROM old WHERE forgotten)
    ), gone_blobs AS (
        DELETE FROM checkpoint_blobs USING fence WHERE thread_id = %(thread_id)s
            AND (checkpoint_ns, channel, version) IN (
                SELECT checkpoint_ns, channel, version FROM old WHERE forgotten
                EXCEPT SELECT checkpoint_ns, channel, version FROM old WHERE NOT forgotten)
    )""")

COPY_THREAD = (
    """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob
    FROM checkpoint_blobs WHERE thread_id = %(source)s
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING""",
    """
    INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path,
        idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
    SET channel = excluded.channel, type = excluded.type, blob = excluded.blob""",
    """
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,
        checkpoint, metadata)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint,
        coalesce(jsonb_set(metadata, '{run_id}', coalesce(
            %(runs)s -> (metadata ->> 'run_id'), metadata -> 'run_id')), metadata)
    FROM checkpoints WHERE thread_id = %(source)s
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE
    SET checkpoint = excluded.checkpoint, metadata = excluded.metadata""",
)
