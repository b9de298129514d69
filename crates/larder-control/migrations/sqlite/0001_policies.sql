PRAGMA application_id = 0x4c415244;

CREATE TABLE identity (
    database_id TEXT NOT NULL
);

INSERT INTO identity (database_id) VALUES (lower(hex(randomblob(8))));

-- `version` only grows, also when a service's last policy is removed.
CREATE TABLE services (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL
);

-- `shape` is the template without the names of its parameters, which don't count.
CREATE TABLE policies (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    template TEXT NOT NULL,
    patch TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (service, method, shape)
);

CREATE TABLE decisions (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    cache_enabled INTEGER NOT NULL,
    reason TEXT NOT NULL,
    since_seconds INTEGER NOT NULL,
    PRIMARY KEY (service, method, shape)
);
