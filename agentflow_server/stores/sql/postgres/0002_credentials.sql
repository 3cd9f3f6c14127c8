CREATE TABLE api_keys (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order they were made in
    key_id text COLLATE "C" NOT NULL UNIQUE,
    user_id text COLLATE "C" NOT NULL,
    name text,
    scopes text NOT NULL,
    secret_hash bytea NOT NULL, -- the secret itself is nowhere
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    last_used_at bigint
);

CREATE INDEX api_keys_by_age ON api_keys (created_at);
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);

-- Either one token or all of a user's that are older than `at`. Blank: not said. No nulls, because
-- they differ from each other, and a row is to be there once.
CREATE TABLE revocations (
    token_id text COLLATE "C" NOT NULL,
    issuer text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (token_id, issuer, user_id)
);

CREATE INDEX revocations_by_end ON revocations (expires_at);
