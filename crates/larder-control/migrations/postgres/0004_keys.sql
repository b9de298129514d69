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

-- Users of the dashboard. `password` is a hash by argon2id. `changed` grows with each change of a user, which ends his
-- sessions; who is removed stays known as that.
CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    services TEXT NOT NULL,
    password TEXT NOT NULL,
    made_at_seconds BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    removed_at_seconds BIGINT
);

-- Those that are logged in: the hash of what their browser has.
CREATE TABLE sessions (
    sha256 TEXT PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name),
    user_changed BIGINT NOT NULL,
    began_at_seconds BIGINT NOT NULL,
    seen_at_seconds BIGINT NOT NULL
);

CREATE INDEX sessions_of_user ON sessions (user_name, began_at_seconds);
