-- Whoever executes a run renews its lease here, again and again; a lease that is not here yet is of
-- a run that has just been claimed. `offered`: nobody executes it, whoever has room may.
CREATE TABLE leases (
    lease text COLLATE "C" PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    renewed_at timestamptz NOT NULL,
    offered boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE INDEX leases_offered ON leases (lease) WHERE offered;
