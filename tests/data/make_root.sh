#!/bin/bash
# make_root.sh OUT: a root as the command line of the checkout in the current directory writes it, for
# the tests that open roots of older versions. To be run as root in namespaces of its own, with this
# checkout on PYTHONPATH:  unshare -n -m --propagation private bash tests/data/make_root.sh OUT
set -e
out=$(realpath "$1")
ip link set lo up
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
mkdir -p /var/lib/image/bin /var/lib/image/etc
cp /bin/busybox /var/lib/image/bin/sh
echo 'root:x:0:0::/:/bin/sh' >/var/lib/image/etc/passwd

pynetns() { python3 -m pynetns "$@"; }
pynetns import /var/lib/image bb:1
pynetns create --name made -e A=1 -p 8080:80 -m 64m --label x=y bb:1 sh -c 'echo hi'
pynetns run --name ended bb:1 sh -c 'echo out; exit 3' || true
pynetns run -d --name live -v /tmp:/data host sleep 1000
cp -a /var/lib/pynetns /var/lib/copy # while a container runs
pynetns rm -f live made ended
pynetns rmi bb:1
pynetns gc --all

rm -f /var/lib/copy/overlay2/*/diff/bin/sh # large, and any shell will do
tar --sort=name --numeric-owner --xattrs --xattrs-include='trusted.*' -C /var/lib/copy -czf "$out" .
