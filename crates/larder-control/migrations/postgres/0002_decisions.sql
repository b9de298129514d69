-- What the engine decides, beside on and off; 0 seconds: the policy's own TTL.
ALTER TABLE decisions ADD COLUMN ttl_seconds DOUBLE PRECISION NOT NULL DEFAULT 0;
ALTER TABLE decisions ADD COLUMN key_share DOUBLE PRECISION NOT NULL DEFAULT 1;
ALTER TABLE decisions ADD COLUMN check_share DOUBLE PRECISION NOT NULL DEFAULT 0;

-- The engine's state of an endpoint, with which it goes on after a restart.
CREATE TABLE engine_states (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    state BYTEA NOT NULL,
    PRIMARY KEY (service, method, shape)
);

-- Each decision that was news, with all that it was made from.
CREATE TABLE decision_records (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    at_seconds BIGINT NOT NULL,
    record BYTEA NOT NULL,
    PRIMARY KEY (service, method, shape, at_seconds)
);

-- Which replica leads, or led last; empty after one that ended in order.
CREATE TABLE leader (
    replica TEXT NOT NULL
);

INSERT INTO leader (replica) VALUES ('');

-- What services told one replica, for the others; kept for two minutes. Nothing of it must outlive a crash.
CREATE UNLOGGED TABLE told (
    replica TEXT NOT NULL,
    number BIGINT NOT NULL,
    written_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    batch TEXT NOT NULL,
    PRIMARY KEY (replica, number)
);
