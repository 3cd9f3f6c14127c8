-- The last line that was appended, also when it is not in the log any more: so its end cannot be cut
-- off unnoticed.
CREATE TABLE audit_head (
    position integer PRIMARY KEY DEFAULT 1 CHECK (position = 1),
    line text NOT NULL
);

INSERT INTO audit_head (line) SELECT line FROM audit_log ORDER BY position DESC LIMIT 1;

-- Whoever shows a ticket is this principal, once. The ticket itself is nowhere.
CREATE TABLE tickets (
    digest bytea PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    principal text NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX tickets_by_owner ON tickets (owner);
CREATE INDEX tickets_by_end ON tickets (expires_at);
