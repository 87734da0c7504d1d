#!/bin/sh
# Compiles the C programs of the benchmarks into benchmarks/build; with --peers also installs the contenders (Debian).
set -eu
cd "$(dirname "$0")"

if [ "${1:-}" = --peers ]; then
	apt-get install -y --no-install-recommends \
		docker.io containerd runc crun bubblewrap iptables iproute2 gcc libc6-dev
fi

mkdir -p build
cc="${CC:-gcc} -O2 -static -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wshadow"
$cc -nostdlib -ffreestanding -fno-stack-protector -fno-pie -no-pie -s probe.c -o build/probe
$cc watch.c -o build/watch
$cc launch.c -o build/launch
$cc floor.c floor_net.c floor_cgroup.c floor_mount.c floor_child.c -o build/floor
