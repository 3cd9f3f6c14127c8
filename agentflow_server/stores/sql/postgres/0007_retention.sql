-- False: its events were deleted after a while. Nothing that has ended is indexed for longer than
-- that.
ALTER TABLE runs ADD COLUMN has_events boolean NOT NULL DEFAULT true;

-- Those that may be resumed have an index of their own: however many they are, nobody passes by them.
CREATE INDEX runs_ended ON runs (ended_at)
    WHERE has_events AND ended_at IS NOT NULL AND status <> 'interrupted';
CREATE INDEX runs_interrupted ON runs (ended_at)
    WHERE has_events AND ended_at IS NOT NULL AND status = 'interrupted';
