"""How a store that an older version wrote becomes one of this version.

Owns: one step from each earlier schema to the next, in order. A step and the stamp of what it leads
to are one transaction, on disk when it ends: a crash leaves the older schema or the newer one,
never half of both, and of several processes one does the work. Knows nothing of files beside the
store: what is to be found there stays empty until somebody who knows them fills it in.

A step is written against tables as they were and is not changed afterwards; it uses no model. What
its result must look like: schema.py, and a test compares them.
https://www.sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes"
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from .schema import SCHEMA_VERSION


def migrate(db: sqlite3.Connection) -> None:
    """Bring the database of a connection in autocommit mode to SCHEMA_VERSION.

    Raises sqlite3.Error (nothing can be written: a full disk, another one's lock for too long), or
    ValueError and others where the file is damaged. The step at which it failed has changed nothing.
    """
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=OFF")  # tables that others refer to are made anew
    while _step(db):
        pass


def _step(db: sqlite3.Connection) -> bool:
    """One step, if one is left to be done; whether there may be another. Who fails closes the
    connection, which undoes what was begun."""
    db.execute("BEGIN IMMEDIATE")
    ((stamp,),) = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchall()
    version = int(stamp)
    if version < SCHEMA_VERSION:  # else another process was faster
        STEPS[version](db)
        db.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(version + 1),))
    db.execute("COMMIT")
    return version < SCHEMA_VERSION


def _run(db: sqlite3.Connection, script: str) -> None:
    """Each statement of a script, within the transaction (executescript would end that)."""
    for statement in script.split(";"):
        db.execute(statement)


# ---- 1 -> 2: rows refer to each other, what is looked for has a column ----

_NEW_CONTAINERS = """
CREATE TABLE new_containers (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL,
    image_id TEXT REFERENCES images (id), summary TEXT,
    status TEXT NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL,
    boot_id TEXT NOT NULL, state TEXT NOT NULL, network TEXT NOT NULL)
"""
# A row that refers to one which is not there is nobody's, and what it stands for is removed as such.
_NEW_REFERENCES = """
DROP TABLE containers;
ALTER TABLE new_containers RENAME TO containers;
CREATE INDEX containers_alive ON containers (pid, start_ticks, boot_id, id) WHERE pid > 0;
CREATE INDEX containers_unsettled ON containers (id)
    WHERE status = 'removing' OR summary IS NULL;

ALTER TABLE networks ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

CREATE TABLE new_image_tags (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE) WITHOUT ROWID;
INSERT INTO new_image_tags SELECT name, image_id FROM image_tags
    WHERE image_id IN (SELECT id FROM images);
DROP TABLE image_tags;
ALTER TABLE new_image_tags RENAME TO image_tags;
CREATE INDEX image_tags_image ON image_tags (image_id);

CREATE TABLE new_sandboxes (
    container_id TEXT PRIMARY KEY REFERENCES containers (id),
    id TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO new_sandboxes SELECT container_id, id, key FROM sandboxes
    WHERE container_id IN (SELECT id FROM containers);
DROP TABLE sandboxes;
ALTER TABLE new_sandboxes RENAME TO sandboxes;

CREATE TABLE new_endpoints (
    id TEXT NOT NULL,
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    network_id TEXT NOT NULL REFERENCES networks (id), name TEXT NOT NULL,
    address INTEGER NOT NULL, mac TEXT NOT NULL, host_ifname TEXT NOT NULL,
    sandbox_id TEXT NOT NULL, PRIMARY KEY (container_id, network_id)) WITHOUT ROWID;
INSERT INTO new_endpoints
    SELECT id, container_id, network_id, name, address, mac, host_ifname, sandbox_id FROM endpoints
    WHERE container_id IN (SELECT container_id FROM sandboxes)
    AND network_id IN (SELECT id FROM networks);
DROP TABLE endpoints;
ALTER TABLE new_endpoints RENAME TO endpoints;
CREATE UNIQUE INDEX endpoints_address ON endpoints (network_id, address);

CREATE TABLE new_ports (
    proto TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL,
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    endpoint_id TEXT NOT NULL, container_ip TEXT NOT NULL,
    container_port INTEGER NOT NULL, PRIMARY KEY (proto, host_port, host_ip)) WITHOUT ROWID;
INSERT INTO new_ports
    SELECT proto, host_ip, host_port, container_id, endpoint_id, container_ip, container_port
    FROM ports WHERE container_id IN (SELECT container_id FROM sandboxes);
DROP TABLE ports;
ALTER TABLE new_ports RENAME TO ports;
CREATE INDEX ports_container ON ports (container_id)
"""


def _refer(db: sqlite3.Connection) -> None:
    db.execute(_NEW_CONTAINERS)
    rows = db.execute("SELECT id, name, created, state, network FROM containers").fetchall()
    for id, name, created, text, network in rows:
        state = json.loads(text)
        found = (
            state.pop("status", "created"),
            state.pop("pid", 0),
            state.pop("start_ticks", 0),
            state.pop("boot_id", ""),
        )
        db.execute(
            "INSERT INTO new_containers VALUES (?, ?, ?, NULL, NULL, ?, ?, ?, ?, ?, ?)",
            (id, name, created, *found, json.dumps(state), network),
        )
    _run(db, _NEW_REFERENCES)


STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _refer}
