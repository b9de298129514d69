-- Who may do what. `version` grows with each change of what is here, so that other processes notice.
CREATE TABLE access (
    version BIGINT NOT NULL
);

INSERT INTO access (version) VALUES (0);

-- Rows are kept: a key that was revoked stays known as that. `services` is a list as JSON, `["*"]` all of them.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    services TEXT NOT NULL,
    made_at_seconds BIGINT NOT NULL,
    expires_at_seconds BIGINT,
    revoked_at_seconds BIGINT,
    used_at_seconds BIGINT
);
