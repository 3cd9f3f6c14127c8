-- Who may log in with a password of this server's.
CREATE TABLE users (
    user_id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL UNIQUE, -- in the one way it is written: compared byte for byte
    roles TEXT NOT NULL,
    scopes TEXT NOT NULL,
    claims TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    disabled_at INTEGER,
    password_changed_at INTEGER,
    password_hash TEXT, -- null: cannot log in
    totp_secret BLOB
);
