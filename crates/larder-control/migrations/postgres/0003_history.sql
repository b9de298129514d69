-- The version in which a service's policies last changed: automatic decisions and overrides make versions, too.
ALTER TABLE services ADD COLUMN policies_version BIGINT NOT NULL DEFAULT 0;

UPDATE services SET policies_version = version;

-- What held from one change to the next: added, never changed; the oldest are removed.
CREATE TABLE revisions (
    service TEXT NOT NULL REFERENCES services (name),
    number BIGINT NOT NULL,
    at_seconds BIGINT NOT NULL,
    action TEXT NOT NULL,
    author TEXT NOT NULL,
    author_verified BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    PRIMARY KEY (service, number)
);

CREATE INDEX revisions_by_action ON revisions (service, action, number);

CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is in % is never changed', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER revisions_stay BEFORE UPDATE ON revisions
FOR EACH STATEMENT EXECUTE FUNCTION stays();

-- Those in force: one that ends is removed.
CREATE TABLE overrides (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    template TEXT NOT NULL,
    patch TEXT NOT NULL,
    author TEXT NOT NULL,
    author_verified BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    began_at_seconds BIGINT NOT NULL,
    expires_at_seconds BIGINT NOT NULL,
    PRIMARY KEY (service, method, shape)
);

-- Who did what: added, never changed, never removed. `mac` chains each to the one before it.
CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    at_seconds BIGINT NOT NULL,
    actor TEXT NOT NULL,
    actor_verified BOOLEAN NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    service TEXT,
    target TEXT,
    before_text TEXT,
    after_text TEXT,
    reason TEXT NOT NULL,
    key_id TEXT NOT NULL,
    mac TEXT NOT NULL
);

CREATE INDEX audit_by_service ON audit (service, sequence);

CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION stays();

-- Nor may its owner, unless he gives himself the right.
REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM CURRENT_USER;
