-- A line holds its own number and the hash of the line before it.
CREATE TABLE audit_log (
    position bigint PRIMARY KEY,
    line text NOT NULL
);
