-- The state of a stopped gateway as it was when an account had one key: one user, whose box dev1 is parked.
-- Made by the gateway of that time; only the user's account and key are left open, as @ACCOUNT@, @FINGERPRINT@ and @KEY@.
PRAGMA application_id = 1651472496;
PRAGMA user_version = 1;
CREATE TABLE records (
    collection TEXT NOT NULL,
    partition TEXT NOT NULL,
    row TEXT NOT NULL,
    version INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (collection, partition, row)
) STRICT, WITHOUT ROWID;
CREATE TABLE sequence (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL) STRICT;
INSERT INTO sequence (id, last) VALUES (1, 21);
INSERT INTO records VALUES ('accounts', '@ACCOUNT@', 'account', 4,
    '{"schema":1,"id":"@ACCOUNT@","fingerprint":"@FINGERPRINT@","key":"@KEY@","created":1795733180590}');
INSERT INTO records VALUES ('boxes', '@ACCOUNT@', 'dev1', 20,
    '{"owner":{"owner":"@ACCOUNT@","name":"dev1","id":"b-08a7c72b3c8c82b1"},"volume":{"binding":"bound","volume":"v-fce364899c707c55"},"placement":{"state":"parked","instance":"i00000-af5fee9465386514","since":1795733181865},"epoch":2,"device":"v-fce364899c707c55","holders":[],"mode":"suspend_on_leave","created_at":1795733180605,"used_at":1795733180769,"schema":1,"mark":"n-9fb87e3bf8caa85a.18"}');
INSERT INTO records VALUES ('events', '@ACCOUNT@', '001795733180641.n-9fb87e3bf8caa85a.000001', 10,
    '{"at":1795733180641,"node":"n-9fb87e3bf8caa85a","kind":"box_created","owner":{"owner":"@ACCOUNT@","name":"dev1","id":"b-08a7c72b3c8c82b1"},"volume":"v-fce364899c707c55","schema":1,"mark":"n-9fb87e3bf8caa85a.8"}');
INSERT INTO records VALUES ('events', '@ACCOUNT@', '001795733181866.n-9fb87e3bf8caa85a.000002', 21,
    '{"at":1795733181866,"node":"n-9fb87e3bf8caa85a","kind":"stay_ended","owner":{"owner":"@ACCOUNT@","name":"dev1","id":"b-08a7c72b3c8c82b1"},"instance":"i00000-af5fee9465386514","volume":"v-fce364899c707c55","epoch":2,"took_ms":1052,"schema":1,"mark":"n-9fb87e3bf8caa85a.19"}');
INSERT INTO records VALUES ('instances', 'i00000', 'i00000', 17,
    '{"id":"i00000-af5fee9465386514","status":{"is":"claimed","owner":{"owner":"@ACCOUNT@","name":"dev1","id":"b-08a7c72b3c8c82b1"},"epoch":1},"generation":"1","created_at":1795733180745,"schema":1,"mark":"n-9fb87e3bf8caa85a.15"}');
INSERT INTO records VALUES ('instances', 'i00001', 'i00001', 16,
    '{"id":"i00001-e10f88be87908f7e","status":{"is":"free"},"generation":"1","created_at":1795733180749,"schema":1,"mark":"n-9fb87e3bf8caa85a.14"}');
INSERT INTO records VALUES ('leases', 'maintainer', 'maintainer', 3,
    '{"holder":"n-9fb87e3bf8caa85a","beat":0,"schema":1,"mark":"n-9fb87e3bf8caa85a.2"}');
INSERT INTO records VALUES ('volumes', 'v-c5692e36db09c611', 'v-c5692e36db09c611', 11,
    '{"id":"v-c5692e36db09c611","status":{"is":"free"},"generation":"1","created_at":1795733180635,"schema":1,"mark":"n-9fb87e3bf8caa85a.9"}');
INSERT INTO records VALUES ('volumes', 'v-fce364899c707c55', 'v-fce364899c707c55', 7,
    '{"id":"v-fce364899c707c55","status":{"is":"bound","owner":{"owner":"@ACCOUNT@","name":"dev1","id":"b-08a7c72b3c8c82b1"}},"generation":"1","created_at":1795733180621,"schema":1,"mark":"n-9fb87e3bf8caa85a.5"}');
