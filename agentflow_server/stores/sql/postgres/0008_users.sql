-- Who may log in with a password of this server's.
CREATE TABLE users (
    user_id text COLLATE "C" PRIMARY KEY,
    username text COLLATE "C" NOT NULL UNIQUE, -- in the one way it is written: compared byte for byte
    roles text NOT NULL,
    scopes text NOT NULL,
    claims text NOT NULL,
    created_at bigint NOT NULL,
    disabled_at bigint,
    password_changed_at bigint,
    password_hash text, -- null: cannot log in
    totp_secret bytea
);
