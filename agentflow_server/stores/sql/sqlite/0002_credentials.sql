CREATE TABLE api_keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    name TEXT,
    scopes TEXT NOT NULL,
    secret_hash BLOB NOT NULL, -- the secret itself is nowhere
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER
);

CREATE INDEX api_keys_by_age ON api_keys (created_at);
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);

-- Either one token or all of a user's that are older than `at`. Blank: not said. No nulls, because
-- they differ from each other, and a row is to be there once.
CREATE TABLE revocations (
    token_id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    user_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (token_id, issuer, user_id)
) WITHOUT ROWID;

CREATE INDEX revocations_by_end ON revocations (expires_at);
