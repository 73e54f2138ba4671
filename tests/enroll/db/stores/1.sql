PRAGMA application_id = 1396791635;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE answers (
        tenant TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        status INTEGER NOT NULL,
        body BLOB NOT NULL,
        created_at TEXT NOT NULL,
        PRIMARY KEY (scope, key)
    ) STRICT;
CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        scopes TEXT NOT NULL,
        label TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT,
        revoked_at TEXT
    ) STRICT, WITHOUT ROWID;
INSERT INTO "api_keys" VALUES('66e05b9e','t','["read", "verify"]','old',X'66E05B9E1D83377AE63B92EB0EEC536D9BEA35CC8B6CB7512211F4BD9C3B7556','2026-11-23T21:57:10.112Z',NULL,NULL);
CREATE TABLE embeddings (
        enrollment INTEGER NOT NULL REFERENCES enrollments ON DELETE CASCADE,
        model_sha256 TEXT NOT NULL,
        vector BLOB NOT NULL,
        PRIMARY KEY (enrollment, model_sha256)
    ) STRICT;
INSERT INTO "embeddings" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'D25E113EADCEAC3EAEFF0A3E2D0B09BF656BBE3E9BC43B3EB9DE61BEB172743E995B193E5174F73D294B3F3CB8F9653E28E59ABE780E89BDD7CD4ABEC6E77B3E');
INSERT INTO "embeddings" VALUES(1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',X'F3FF863C6BC4273F871B173F62D97BBE290E13BE792382BE47968C3E7E5ADDBC');
INSERT INTO "embeddings" VALUES(2,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'CD574E3D8FA30EBE7A6BE1BDF88B26BF8089F53EB9199C3E8A97B1BDBB24533ED576993D331E17BE055F853EA17AA9BDB072B3BDD92558BE6548F83D458AD8BC');
INSERT INTO "embeddings" VALUES(2,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',X'478E1ABB9808B93E932A833E370C803E7E280F3FC83AD5BE29C85DBEA796E9BE');
INSERT INTO "embeddings" VALUES(3,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'95ECC03E0495F1BE9B169E3D40AED6BDFA26ABBD350A23BD05F2BEBE99642FBDE89223BEF10E1D3FD1BE2A3D835585BD6AB754BDB698FCBD927B47BE43C493BD');
INSERT INTO "embeddings" VALUES(5,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'53F94BBE746DA8BEB8AF7CBD1FE2D53D867A903EC63BDF3C53910CBE8A9C47BE2B723E3E00E8CF3E60C28A3DC2D99CBEE9BC73BE2E7CCB3E506A4E3D8149DCBE');
CREATE TABLE enrollments (
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
    ) STRICT;
INSERT INTO "enrollments" VALUES(1,1,'e1',6.0,7.0,20.0,0.0,NULL,'2026-11-23T21:57:10.058Z');
INSERT INTO "enrollments" VALUES(2,1,'e2',6.0,7.0,20.0,0.0,0.584046324858432,'2026-11-23T21:57:10.066Z');
INSERT INTO "enrollments" VALUES(3,2,'e1',10.0,11.0,20.0,0.0,NULL,'2026-11-23T21:57:10.076Z');
INSERT INTO "enrollments" VALUES(5,4,'e1',4.0,5.0,20.0,0.0,NULL,'2026-11-23T21:57:10.110Z');
CREATE TABLE models (
        sha256 TEXT PRIMARY KEY,
        dim INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO "models" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',16);
INSERT INTO "models" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',8);
CREATE TABLE speaker_groups (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        name TEXT NOT NULL,
        PRIMARY KEY (speaker, name)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "speaker_groups" VALUES(1,'g');
INSERT INTO "speaker_groups" VALUES(1,'h');
CREATE TABLE speakers (
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
    ) STRICT;
INSERT INTO "speakers" VALUES(1,'t','alice','Alice','{"note":1}',0,2,12.0,3,'2026-11-23T21:57:10.040Z','2026-11-23T21:57:10.066Z');
INSERT INTO "speakers" VALUES(2,'t','bob',NULL,'{}',1,1,10.0,6,'2026-11-23T21:57:10.072Z','2026-11-23T21:57:10.080Z');
INSERT INTO "speakers" VALUES(4,'u','alice',NULL,'{}',0,1,4.0,2,'2026-11-23T21:57:10.105Z','2026-11-23T21:57:10.111Z');
CREATE TABLE templates (
        speaker INTEGER NOT NULL REFERENCES speakers ON DELETE CASCADE,
        model_sha256 TEXT NOT NULL,
        vector BLOB NOT NULL,
        enrollments INTEGER NOT NULL,
        net_speech_s REAL NOT NULL,
        PRIMARY KEY (speaker, model_sha256)
    ) STRICT;
INSERT INTO "templates" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'4D4FDD3DDF12E43DCA506C3C8F902ABF6CEEF43E91728C3E87C930BE73F67F3E3045013EA43876BC61941C3EC331A33D057560BE2BF01FBE53C730BD99A3FC3D',2,12.0);
INSERT INTO "templates" VALUES(1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',X'B2360F3C0E1E213F0222063FDF38283BADB7833E078CD4BE730E133D092899BE',2,12.0);
INSERT INTO "templates" VALUES(2,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'95ECC03E0495F1BE9B169E3D40AED6BDFA26ABBD350A23BD05F2BEBE99642FBDE89223BEF10E1D3FD1BE2A3D835585BD6AB754BDB698FCBD927B47BE43C493BD',1,10.0);
INSERT INTO "templates" VALUES(4,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'53F94BBE746DA8BEB8AF7CBD1FE2D53D867A903EC63BDF3C53910CBE8A9C47BE2B723E3E00E8CF3E60C28A3DC2D99CBEE9BC73BE2E7CCB3E506A4E3D8149DCBE',1,4.0);
CREATE TABLE tenants (
        tenant TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,          -- counts the changes of this tenant's speakers
        deleted_revision INTEGER NOT NULL   -- the last one that deleted a speaker
    ) STRICT, WITHOUT ROWID;
INSERT INTO "tenants" VALUES('t',9,9);
INSERT INTO "tenants" VALUES('u',2,0);
CREATE INDEX speakers_by_tenant ON speakers (tenant);
CREATE INDEX speakers_by_revision ON speakers (tenant, revision);
CREATE INDEX speaker_groups_by_name ON speaker_groups (name, speaker);
CREATE VIEW grouped_speakers AS SELECT *, (
        SELECT json_group_array(name) FROM
            (SELECT name FROM speaker_groups WHERE speaker = speakers.number ORDER BY name)
    ) AS group_names FROM speakers;
CREATE INDEX answers_by_age ON answers (created_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('speakers',4);
INSERT INTO "sqlite_sequence" VALUES('enrollments',5);
COMMIT;
