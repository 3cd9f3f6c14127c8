-- 0: its events were deleted after a while. Nothing that has ended is indexed for longer than that.
ALTER TABLE runs ADD COLUMN has_events INTEGER NOT NULL DEFAULT 1;

-- Those that may be resumed have an index of their own: however many they are, nobody passes by them.
CREATE INDEX runs_ended ON runs (ended_at)
    WHERE has_events = 1 AND ended_at IS NOT NULL AND status <> 'interrupted';
CREATE INDEX runs_interrupted ON runs (ended_at)
    WHERE has_events = 1 AND ended_at IS NOT NULL AND status = 'interrupted';
