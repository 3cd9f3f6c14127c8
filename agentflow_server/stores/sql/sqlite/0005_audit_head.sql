-- The last line that was appended, also when it is not in the log any more: so its end cannot be cut
-- off unnoticed.
CREATE TABLE audit_head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    line TEXT NOT NULL
);

INSERT INTO audit_head (only, line) SELECT 1, line FROM audit_log ORDER BY position DESC LIMIT 1;
