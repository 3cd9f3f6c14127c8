-- The last step of his second factor that was accepted: no code is good twice.
ALTER TABLE users ADD COLUMN totp_step bigint;

-- What the token server signs with.
CREATE TABLE signing_keys (
    kid text COLLATE "C" PRIMARY KEY,
    algorithm text NOT NULL,
    private_pem text NOT NULL,
    created_at bigint NOT NULL,
    signs_from bigint NOT NULL,
    retires_at bigint
);

-- What came of one login each. Whether it is revoked is said here alone.
CREATE TABLE grant_families (
    family_id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C", -- null: revoked before anything was heard of it
    expires_at bigint NOT NULL,
    revoked boolean NOT NULL
);
CREATE INDEX grant_families_by_user ON grant_families (user_id);
CREATE INDEX grant_families_expiring ON grant_families (expires_at);

CREATE TABLE authorization_codes (
    code_hash bytea PRIMARY KEY,
    client_id text NOT NULL,
    redirect_uri text NOT NULL,
    code_challenge text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    scopes text NOT NULL,
    authenticated_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    family_id text COLLATE "C" NOT NULL,
    uses bigint NOT NULL DEFAULT 0
);
CREATE INDEX authorization_codes_unused ON authorization_codes (user_id) WHERE uses = 0;
CREATE INDEX authorization_codes_expiring ON authorization_codes (expires_at);

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family_id text COLLATE "C" NOT NULL,
    client_id text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    scopes text NOT NULL,
    authenticated_at bigint NOT NULL,
    issued_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    replaced_at bigint -- kept until it expires: whoever comes with it again has stolen it
);
CREATE INDEX refresh_tokens_expiring ON refresh_tokens (expires_at);
