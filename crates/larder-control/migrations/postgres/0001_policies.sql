CREATE TABLE identity (
    database_id TEXT NOT NULL
);

INSERT INTO identity (database_id) VALUES (substr(md5(gen_random_uuid()::text), 1, 16));

-- `version` only grows, also when a service's last policy is removed.
CREATE TABLE services (
    name TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

-- `shape` is the template without the names of its parameters, which don't count.
CREATE TABLE policies (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    template TEXT NOT NULL,
    patch TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (service, method, shape)
);

CREATE TABLE decisions (
    service TEXT NOT NULL REFERENCES services (name),
    method TEXT NOT NULL,
    shape TEXT NOT NULL,
    cache_enabled BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    since_seconds BIGINT NOT NULL,
    PRIMARY KEY (service, method, shape)
);
