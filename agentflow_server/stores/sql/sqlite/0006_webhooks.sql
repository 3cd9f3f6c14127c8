-- Where the end of a run is told.
ALTER TABLE runs ADD COLUMN webhook TEXT;

-- What is still to be told: stored as the run ends, and as it was then, for it may go on afterwards.
CREATE TABLE webhook_deliveries (
    delivery_id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
    thread_id TEXT NOT NULL REFERENCES threads (thread_id) ON DELETE CASCADE,
    url TEXT NOT NULL, -- scheme://host[:port]/…
    host TEXT NOT NULL GENERATED ALWAYS AS (
        substr(url, instr(url, '//') + 2, instr(substr(url, instr(url, '//') + 2), '/') - 1)
    ) STORED,
    status TEXT NOT NULL,
    ended_at INTEGER NOT NULL,
    error_code TEXT,
    error_detail TEXT,
    interrupts TEXT,
    last_position INTEGER NOT NULL, -- of the messages there were
    attempt INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER, -- null: given up
    lease TEXT, -- of whoever sends it, until it is due
    failure TEXT -- of the last attempt
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at, host) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_by_run ON webhook_deliveries (run_id);
CREATE INDEX webhook_deliveries_by_thread ON webhook_deliveries (thread_id);
