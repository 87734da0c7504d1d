"""The tables of the store, as a new root gets them.

Owns: columns, keys and indexes of the present version. Knows nothing of how an older file becomes
one of this version (migrations.py): who changes a line here adds a step there.
"""

from __future__ import annotations

SCHEMA_VERSION = 2

# Each table and index that a start touches costs it a page, some 10 us: hence few indexes, and
# WITHOUT ROWID where rows are small. A container's row is not: in such a table whatever exceeds a
# quarter of a page goes to another one. An endpoint is named after its container, whose name is
# unique already; other ids are 32 random bytes and need no index to be unique.
#
# A container's `summary` is there once its files are: what lists show without opening any. Of its
# state the columns are what is looked for; an index holds those that live, whose number does not
# depend on how many have ended, and another those that somebody is making or removing.
#
# What is made of something else refers to it, so that neither goes without the other: an image is
# not removed under a container, a network not under an endpoint. A network's `generation` grows
# when it is about to be taken down: who knows it from before must look again.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, created TEXT NOT NULL, layers TEXT NOT NULL,
    config TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE image_tags (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX image_tags_image ON image_tags (image_id);
CREATE TABLE containers (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL,
    image_id TEXT REFERENCES images (id), summary TEXT,
    status TEXT NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL,
    boot_id TEXT NOT NULL, state TEXT NOT NULL, network TEXT NOT NULL);
CREATE INDEX containers_alive ON containers (pid, start_ticks, boot_id, id) WHERE pid > 0;
CREATE INDEX containers_unsettled ON containers (id)
    WHERE status = 'removing' OR summary IS NULL;
CREATE TABLE networks (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, subnet TEXT NOT NULL,
    gateway TEXT NOT NULL, bridge TEXT NOT NULL, mtu INTEGER NOT NULL, cursor INTEGER NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE sandboxes (
    container_id TEXT PRIMARY KEY REFERENCES containers (id),
    id TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE endpoints (
    id TEXT NOT NULL,
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    network_id TEXT NOT NULL REFERENCES networks (id), name TEXT NOT NULL,
    address INTEGER NOT NULL, mac TEXT NOT NULL, host_ifname TEXT NOT NULL,
    sandbox_id TEXT NOT NULL, PRIMARY KEY (container_id, network_id)) WITHOUT ROWID;
CREATE UNIQUE INDEX endpoints_address ON endpoints (network_id, address);
CREATE TABLE ports (
    proto TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL,
    container_id TEXT NOT NULL REFERENCES sandboxes (container_id) ON DELETE CASCADE,
    endpoint_id TEXT NOT NULL, container_ip TEXT NOT NULL,
    container_port INTEGER NOT NULL, PRIMARY KEY (proto, host_port, host_ip)) WITHOUT ROWID;
CREATE INDEX ports_container ON ports (container_id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL,
    actor_id TEXT NOT NULL, attributes TEXT NOT NULL);
"""
