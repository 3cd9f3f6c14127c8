-- Where the end of a run is told.
ALTER TABLE runs ADD COLUMN webhook text;

-- What is still to be told: stored as the run ends, and as it was then, for it may go on afterwards.
-- `due_at` is by the clock of the database, which all who send have in common.
CREATE TABLE webhook_deliveries (
    delivery_id text COLLATE "C" PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL REFERENCES runs ON DELETE CASCADE,
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    url text NOT NULL, -- scheme://host[:port]/…
    host text COLLATE "C" NOT NULL GENERATED ALWAYS AS (split_part(url, '/', 3)) STORED,
    status text NOT NULL,
    ended_at bigint NOT NULL,
    error_code text,
    error_detail text,
    interrupts text,
    last_position bigint NOT NULL, -- of the messages there were
    attempt integer NOT NULL DEFAULT 0,
    due_at bigint, -- null: given up
    lease text, -- of whoever sends it, until it is due
    failure text -- of the last attempt
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at, host) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_by_run ON webhook_deliveries (run_id);
CREATE INDEX webhook_deliveries_by_thread ON webhook_deliveries (thread_id);
