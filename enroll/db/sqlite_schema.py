"""The tables, as forward-only migrations: entry n takes a file from version n to n + 1."""

APPLICATION_ID = 0x53415953  # "SAYS": tells our files from any other SQLite database

# `speakers.number` is the FAISS id. AUTOINCREMENT never gives a number twice, so a deleted speaker's
# number cannot come to mean somebody else in an index that has not caught up yet.
_VERSION_1 = (
    """CREATE TABLE tenants (
        tenant TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,          -- counts the changes of this tenant's speakers
        deleted_revision INTEGER NOT NULL   -- the last one that deleted a speaker
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE speakers (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT,
        metadata TEXT NOT NULL,
        opted_out INTEGER NOT NULL DEFAULT 0,
        enrollments INTEGER NOT NULL DEFAULT 0,
        net_speech_s REAL NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL,          -- the tenant's revision at the speaker's last change
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        UNIQUE (tenant, id)
    ) STRICT""",
    "CREATE INDEX speakers_by_tenant ON speakers (tenant)",
    "CREATE INDEX speakers_by_revision ON speakers (tenant, revision)",
    """CREATE TABLE speaker_groups (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        name TEXT NOT NULL,
        PRIMARY KEY (speaker, name)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX speaker_groups_by_name ON speaker_groups (name, speaker)",
    """CREATE VIEW grouped_speakers AS SELECT *, (
        SELECT json_group_array(name) FROM
            (SELECT name FROM speaker_groups WHERE speaker = speakers.number ORDER BY name)
    ) AS group_names FROM speakers""",
    """CREATE TABLE enrollments (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        id TEXT NOT NULL,
        net_speech_s REAL NOT NULL,
        duration_s REAL NOT NULL,
        snr_db REAL,
        clipping REAL NOT NULL,
        cohesion REAL,
        created_at TEXT NOT NULL,
        UNIQUE (speaker, id)
    ) STRICT""",
    """CREATE TABLE models (
        sha256 TEXT PRIMARY KEY,
        dim INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE embeddings (
        enrollment INTEGER NOT NULL REFERENCES enrollments ON DELETE CASCADE,
        model_sha256 TEXT NOT NULL,
        vector BLOB NOT NULL,
        PRIMARY KEY (enrollment, model_sha256)
    ) STRICT""",
    """CREATE TABLE templates (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        model_sha256 TEXT NOT NULL,
        vector BLOB NOT NULL,
        enrollments INTEGER NOT NULL,
        net_speech_s REAL NOT NULL,
        PRIMARY KEY (speaker, model_sha256)
    ) STRICT""",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        scopes TEXT NOT NULL,
        label TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT,
        revoked_at TEXT
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE answers (
        tenant TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        status INTEGER NOT NULL,
        body BLOB NOT NULL,
        created_at TEXT NOT NULL,
        PRIMARY KEY (scope, key)
    ) STRICT""",
    "CREATE INDEX answers_by_age ON answers (created_at)",
)

# Sealing, erasure, the audit log. The vectors of a version 1 file are sealed when the vault first opens
# it (`Vault`), since a migration has no key.
_SEALING = (
    "ALTER TABLE embeddings RENAME COLUMN vector TO sealed",
    "ALTER TABLE templates RENAME COLUMN vector TO sealed",
    "ALTER TABLE tenants ADD COLUMN keep_recordings INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE speakers ADD COLUMN consent TEXT",
    "ALTER TABLE speakers ADD COLUMN expires_at TEXT",
    "CREATE INDEX speakers_by_expiry ON speakers (expires_at) WHERE expires_at IS NOT NULL",
    """CREATE TABLE store (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        id TEXT NOT NULL,                   -- random: tells a backup of this store from another's
        master_key TEXT NOT NULL,           -- the id of the key that the keys below are wrapped with
        audit_key BLOB NOT NULL             -- wrapped
    ) STRICT""",
    """CREATE TABLE tenant_keys (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('seal', 'pseudonym')),
        wrapped BLOB NOT NULL,
        created_at TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX tenant_keys_by_tenant ON tenant_keys (tenant, purpose)",
    """CREATE TABLE recordings (
        enrollment INTEGER PRIMARY KEY REFERENCES enrollments ON DELETE CASCADE,
        sealed BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE opt_outs (
        tenant TEXT NOT NULL,
        speaker TEXT NOT NULL,              -- a pseudonym: the speaker may be gone
        at TEXT NOT NULL,
        PRIMARY KEY (tenant, speaker)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE erasures (
        kind TEXT NOT NULL CHECK (kind IN ('speaker', 'enrollment', 'recording', 'tenant key')),
        number INTEGER NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (kind, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE backups (
        made_at TEXT NOT NULL,
        path TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        entry TEXT NOT NULL,
        mac BLOB NOT NULL
    ) STRICT""",
    """CREATE TRIGGER audit_keeps BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_stands BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)

# Guesses at a speaker, and recordings that were used. Keys that could verify saw every score until now.
_ATTEMPTS = (
    """CREATE TABLE attempts (
        speaker INTEGER PRIMARY KEY REFERENCES speakers ON DELETE CASCADE,
        failures INTEGER NOT NULL,          -- in a row
        attempt TEXT NOT NULL,              -- the last one's name
        failed_at TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE heard (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        digest BLOB NOT NULL,               -- of the decoded samples, salted by the speaker
        call TEXT NOT NULL,
        attempt TEXT NOT NULL,
        enrollment INTEGER REFERENCES enrollments ON DELETE CASCADE,
        at TEXT NOT NULL,
        PRIMARY KEY (speaker, digest, call)
    ) STRICT""",
    "CREATE INDEX heard_by_age ON heard (at)",
    "CREATE INDEX heard_by_speaker ON heard (speaker, at)",
    "CREATE INDEX heard_by_enrollment ON heard (enrollment)",
    """UPDATE api_keys SET scopes = json_insert(scopes, '$[#]', 'scores')
       WHERE EXISTS (SELECT 1 FROM json_each(scopes) WHERE value = 'verify')""",
)

# Enrolled recordings are remembered as long as the enrolment, so the index of what runs out leaves them out.
_HEARD_BY_AGE = (
    "DROP INDEX heard_by_age",
    "CREATE INDEX heard_by_age ON heard (at) WHERE call != 'enroll'",
)

# Which speakers went, so that after a deletion an index of a million is not compared with the whole tenant.
_DEPARTURES = (
    """CREATE TABLE departures (
        tenant TEXT NOT NULL,
        revision INTEGER NOT NULL,          -- the tenant's, at the deletion
        number INTEGER NOT NULL,
        PRIMARY KEY (tenant, revision)
    ) STRICT, WITHOUT ROWID""",
    # departures after this revision are all known
    "ALTER TABLE tenants ADD COLUMN departures_from INTEGER NOT NULL DEFAULT 0",
    "UPDATE tenants SET departures_from = revision",
)

# Rows of accepted calls stay out of the index by enrolment, rows of enrolments out of that by speaker, which
# then answers by itself which of a speaker's are the newest.
HEARD_INDEXES = (
    "DROP INDEX heard_by_speaker",
    "CREATE INDEX heard_by_speaker ON heard (speaker, at) WHERE call != 'enroll'",
    "DROP INDEX heard_by_enrollment",
    "CREATE INDEX heard_by_enrollment ON heard (enrollment) WHERE enrollment IS NOT NULL",
)

# The digest of an enrolled recording is kept with its enrolment: if one recording was enrolled twice and one
# of the two enrolments is deleted, the other still refuses a replay. `attempts` names the tenant, so that the
# locked and the waiting speakers of a tenant are found without a look at all the others.
DIGESTS_WITH_ENROLLMENTS = (
    """UPDATE enrollments SET digest = (
        SELECT digest FROM heard WHERE call = 'enroll' AND heard.enrollment = enrollments.number
    )""",
    """INSERT INTO used_recordings (speaker, digest, call, attempt, at)
        SELECT speaker, digest, call, attempt, at FROM heard WHERE call != 'enroll'""",
    "DROP TABLE heard",
    "CREATE INDEX used_recordings_by_age ON used_recordings (at)",
    "CREATE INDEX used_recordings_by_speaker ON used_recordings (speaker, at)",
    "UPDATE attempts SET tenant = (SELECT tenant FROM speakers WHERE speakers.number = attempts.speaker)",
    "CREATE INDEX attempts_by_failures ON attempts (tenant, failures)",
    "CREATE INDEX attempts_by_time ON attempts (tenant, failed_at)",
    "ALTER TABLE tenants DROP COLUMN deleted_revision",  # nothing reads it since `departures`
)
_USED_RECORDINGS = (
    "ALTER TABLE enrollments ADD COLUMN digest BLOB",  # of the decoded samples, salted by the speaker
    """CREATE TABLE used_recordings (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        digest BLOB NOT NULL,
        call TEXT NOT NULL,                 -- that accepted it
        attempt TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (speaker, digest, call)
    ) STRICT""",
    "ALTER TABLE attempts ADD COLUMN tenant TEXT NOT NULL DEFAULT ''",
    *DIGESTS_WITH_ENROLLMENTS,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _VERSION_1,
    _SEALING,
    _ATTEMPTS,
    _HEARD_BY_AGE,
    _DEPARTURES,
    HEARD_INDEXES,
    _USED_RECORDINGS,
)
