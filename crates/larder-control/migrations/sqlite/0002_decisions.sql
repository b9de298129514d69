-- What the engine decides, beside on and off; 0 seconds: the policy's own TTL.
ALTER TABLE decisions ADD COLUMN ttl_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE decisions ADD COLUMN key_share REAL NOT NULL DEFAULT 1;
ALTER TABLE decisions ADD COLUMN check_share REAL NOT NULL DEFAULT 0;

-- The engine's state of an endpoint, with which it goes on after a restart.
CREATE TABLE engine_states (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (service, method, shape)
);

-- Each decision that was news, with all that it was made from.
CREATE TABLE decision_records (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    at_seconds INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (service, method, shape, at_seconds)
);
