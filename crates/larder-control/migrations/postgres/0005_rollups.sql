-- What was measured of a service in a stretch of time: minutes for a day, hours for a quarter.
CREATE TABLE rollups (
    service TEXT NOT NULL,
    length_seconds BIGINT NOT NULL,
    at_seconds BIGINT NOT NULL,
    figures TEXT NOT NULL,
    PRIMARY KEY (service, length_seconds, at_seconds)
);

CREATE INDEX rollups_by_age ON rollups (length_seconds, at_seconds);
