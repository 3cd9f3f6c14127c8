-- The last step of his second factor that was accepted: no code is good twice.
ALTER TABLE users ADD COLUMN totp_step INTEGER;

-- What the token server signs with.
CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    algorithm TEXT NOT NULL,
    private_pem TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    retires_at INTEGER
);

-- What came of one login each. Whether it is revoked is said here alone.
CREATE TABLE grant_families (
    family_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT, -- null: revoked before anything was heard of it
    expires_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL
);
CREATE INDEX grant_families_by_user ON grant_families (user_id);
CREATE INDEX grant_families_expiring ON grant_families (expires_at);

CREATE TABLE authorization_codes (
    code_hash BLOB NOT NULL PRIMARY KEY,
    client_id TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    code_challenge TEXT NOT NULL,
    user_id TEXT NOT NULL,
    scopes TEXT NOT NULL,
    authenticated_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    family_id TEXT NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX authorization_codes_unused ON authorization_codes (user_id) WHERE uses = 0;
CREATE INDEX authorization_codes_expiring ON authorization_codes (expires_at);

CREATE TABLE refresh_tokens (
    token_hash BLOB NOT NULL PRIMARY KEY,
    family_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    scopes TEXT NOT NULL,
    authenticated_at INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    replaced_at INTEGER -- kept until it expires: whoever comes with it again has stolen it
);
CREATE INDEX refresh_tokens_expiring ON refresh_tokens (expires_at);
