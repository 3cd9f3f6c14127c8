-- What a run can be besides begun and ended: stopped, interrupted and resumed, retried, delayed.

ALTER TABLE runs ADD COLUMN stopping TEXT; -- cancel or rollback: whoever executes it ends it
ALTER TABLE runs ADD COLUMN interrupts TEXT; -- the questions an interrupted run waits for
ALTER TABLE runs ADD COLUMN answers TEXT; -- a list: one object for each time it was resumed
ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN start_after INTEGER; -- not null: its time has not come
ALTER TABLE runs ADD COLUMN request_id TEXT; -- of the request that asked for it
ALTER TABLE runs ADD COLUMN traceparent TEXT;

-- The run whose questions can still be answered.
ALTER TABLE threads ADD COLUMN interrupted_run TEXT;

DROP INDEX runs_pending;
CREATE INDEX runs_pending ON runs (thread_id, turn) WHERE status = 'pending' AND start_after IS NULL;
CREATE INDEX runs_delayed ON runs (start_after) WHERE status = 'pending' AND start_after IS NOT NULL;
CREATE INDEX runs_running_of_owner ON runs (owner) WHERE status = 'running';
CREATE INDEX threads_interrupted ON threads (owner) WHERE interrupted_run IS NOT NULL;
