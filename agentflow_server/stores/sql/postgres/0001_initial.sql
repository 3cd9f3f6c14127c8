-- Everything is in the schema `agentflow`, which is the search path while this runs.
-- Times are microseconds since 1970 in UTC. JSON is kept as the text it came as: jsonb would
-- reorder members, and refuses some numbers and characters. Text that is compared or sorted has
-- the collation "C", so that its order is the same on every machine.

CREATE TABLE schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at bigint NOT NULL
);

-- Not filled up: both updates of a turn then find room beside the old row.
CREATE TABLE threads (
    thread_id text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    name text,
    status text NOT NULL,
    agent text, -- fixed by the first run
    metadata text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    next_turn bigint NOT NULL DEFAULT 1,
    hidden boolean NOT NULL DEFAULT false, -- true: being deleted, nobody finds it
    interrupted_run text COLLATE "C" -- the run whose questions can still be answered
) WITH (fillfactor = 80);

CREATE INDEX threads_by_owner ON threads (owner, created_at DESC, thread_id DESC) WHERE NOT hidden;
CREATE INDEX threads_hidden ON threads (thread_id) WHERE hidden;
CREATE INDEX threads_interrupted ON threads (owner) WHERE interrupted_run IS NOT NULL;

CREATE TABLE runs (
    run_id text COLLATE "C" PRIMARY KEY,
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner text COLLATE "C" NOT NULL,
    agent text NOT NULL,
    turn bigint NOT NULL,
    status text NOT NULL,
    lease text, -- of the worker that executes the run; null unless it is running
    claims text NOT NULL,
    config text NOT NULL,
    created_at bigint NOT NULL,
    started_at bigint,
    ended_at bigint,
    error_code text,
    error_detail text,
    stopping text, -- cancel or rollback: whoever executes it ends it
    interrupts text, -- the questions an interrupted run waits for
    answers text, -- a list: one object for each time it was resumed
    attempt integer NOT NULL DEFAULT 1,
    start_after bigint, -- not null: its time has not come
    request_id text, -- of the request that asked for it
    traceparent text, -- what traces call that request
    UNIQUE (thread_id, turn)
);

-- One run per thread, whatever the code above believes.
CREATE UNIQUE INDEX runs_running ON runs (thread_id) WHERE status = 'running';
CREATE INDEX runs_running_of_owner ON runs (owner) WHERE status = 'running';
CREATE INDEX runs_pending ON runs (thread_id, turn)
    WHERE status = 'pending' AND start_after IS NULL;
CREATE INDEX runs_delayed ON runs (start_after)
    WHERE status = 'pending' AND start_after IS NOT NULL;

-- The user's message of a turn has position 0, what the agent answered the positions after it.
CREATE TABLE messages (
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    turn bigint NOT NULL,
    position bigint NOT NULL,
    message_id text COLLATE "C" NOT NULL UNIQUE,
    run_id text COLLATE "C" NOT NULL,
    role text NOT NULL,
    content text NOT NULL,
    metadata text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (thread_id, turn, position)
);

CREATE TABLE run_events (
    run_id text COLLATE "C" NOT NULL REFERENCES runs ON DELETE CASCADE,
    seq bigint NOT NULL,
    type text NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE idempotency (
    owner text COLLATE "C" NOT NULL,
    route text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    run_id text, -- null: the request made the thread
    created_at bigint NOT NULL,
    PRIMARY KEY (owner, route, key)
);

CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX idempotency_by_thread ON idempotency (thread_id);
