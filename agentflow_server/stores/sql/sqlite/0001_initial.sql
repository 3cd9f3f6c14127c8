-- Times are microseconds since 1970 in UTC. JSON is text in UTF-8.

PRAGMA application_id = 1095190092; -- "AGFL": the file is ours

CREATE TABLE schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at INTEGER NOT NULL
);

CREATE TABLE threads (
    thread_id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    agent TEXT, -- fixed by the first run
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    next_turn INTEGER NOT NULL DEFAULT 1,
    hidden INTEGER NOT NULL DEFAULT 0 -- 1: being deleted, nobody finds it
);

CREATE INDEX threads_by_owner ON threads (owner, created_at DESC, thread_id DESC) WHERE hidden = 0;
CREATE INDEX threads_hidden ON threads (thread_id) WHERE hidden = 1;

CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    thread_id TEXT NOT NULL REFERENCES threads (thread_id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    agent TEXT NOT NULL,
    turn INTEGER NOT NULL,
    status TEXT NOT NULL,
    lease TEXT, -- of the worker that executes the run; null unless it is running
    claims TEXT NOT NULL,
    config TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    error_code TEXT,
    error_detail TEXT,
    UNIQUE (thread_id, turn)
);

-- One run per thread, whatever the code above believes.
CREATE UNIQUE INDEX runs_running ON runs (thread_id) WHERE status = 'running';
CREATE INDEX runs_pending ON runs (thread_id, turn) WHERE status = 'pending';

-- The user's message of a turn has position 0, what the agent answered the positions after it.
CREATE TABLE messages (
    thread_id TEXT NOT NULL REFERENCES threads (thread_id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    position INTEGER NOT NULL,
    message_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (thread_id, turn, position)
) WITHOUT ROWID;

CREATE TABLE run_events (
    run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;

CREATE TABLE idempotency (
    owner TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    thread_id TEXT NOT NULL REFERENCES threads (thread_id) ON DELETE CASCADE,
    run_id TEXT, -- null: the request made the thread
    created_at INTEGER NOT NULL,
    PRIMARY KEY (owner, route, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX idempotency_by_thread ON idempotency (thread_id);
