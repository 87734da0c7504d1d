"""How long a cold start takes, for all contenders in the same run, taking turns.

    python benchmarks/bench_start.py --samples 200 --peers floor,pynetns,dockerd --json FILE

A sample is: create (not measured), start, first byte of the container's program, remove (not
measured), an idle gap. Needs root; everything happens in private namespaces.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness
from peers import PEERS, Peer, make_peer


class Samples:
    """What was measured of one contender, in ns."""

    def __init__(self) -> None:
        self.first_byte: list[int] = []
        self.call_return: list[int] = []
        self.steps: defaultdict[str, list[int]] = defaultdict(list)

    def summary(self) -> dict[str, Any]:
        result: dict[str, Any] = {"first_byte": harness.quantiles(self.first_byte)}
        if self.call_return:
            result["call_return"] = harness.quantiles(self.call_return)
        if self.steps:
            result["steps"] = {name: harness.quantiles(v)["p50"] for name, v in self.steps.items()}
        result["samples_us"] = [round(value / 1000, 1) for value in self.first_byte]
        return result


def measure_one(peer: Peer, watcher: harness.Watcher, i: int, samples: Samples | None) -> None:
    """One container from create to remove; `samples` None: a warm-up, not counted."""
    peer.create(i)
    times = peer.start(i)
    first = watcher.first_byte()
    if samples is not None:
        samples.first_byte.append(first - times.called)
        if times.returned is not None:
            samples.call_return.append(times.returned - times.called)
        for name, value in peer.steps().items():
            samples.steps[name].append(value)
    peer.remove(i)


def prepare_peers(names: list[str], work: harness.Workspace) -> tuple[list[Peer], dict[str, str]]:
    """The contenders that run here, and why the others do not."""
    ready: list[Peer] = []
    missing: dict[str, str] = {}
    for name in names:
        peer = make_peer(name, work)
        reason = peer.available()
        if reason is None:
            try:
                peer.prepare()
                ready.append(peer)
                continue
            except Exception as error:
                peer.close()
                reason = f"{type(error).__name__}: {error}"
        missing[name] = reason
        print(f"missing: {name}: {reason}", file=sys.stderr)
    return ready, missing


def measure(
    peers: list[Peer], watcher: harness.Watcher, options: argparse.Namespace
) -> dict[str, Samples]:
    """A B C A B C …, so that whatever the machine does besides hits all alike."""
    samples = {peer.name: Samples() for peer in peers}
    for i in range(-options.warmup, options.samples):
        for peer in peers:
            measure_one(peer, watcher, i + options.warmup, samples[peer.name] if i >= 0 else None)
            harness.settle(options.gap)
    return samples


def ratios(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """p50 of the first byte of each contender to that of the floor and to that of pynetns."""
    found: dict[str, dict[str, float]] = {}
    for base in ("floor", "pynetns"):
        if base in results:
            unit = results[base]["first_byte"]["p50"]
            found[f"to_{base}"] = {
                name: round(result["first_byte"]["p50"] / unit, 2)
                for name, result in results.items()
            }
    return found


def print_table(results: dict[str, dict[str, Any]], factors: dict[str, dict[str, float]]) -> None:
    print(f"{'':9}{'mark':>12}{'n':>5}{'p50':>10}{'p90':>10}{'p99':>10} us   to floor  to pynetns")
    for name, result in results.items():
        for mark in ("first_byte", "call_return"):
            if mark not in result:
                continue
            q = result[mark]
            line = f"{name:9}{mark:>12}{q['n']:5}{q['p50']:10.1f}{q['p90']:10.1f}{q['p99']:10.1f}"
            if mark == "first_byte":
                for base in ("to_floor", "to_pynetns"):
                    line += f"{factors.get(base, {}).get(name, float('nan')):11.2f}"
            print(line)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=200, help="per contender (default 200)")
    parser.add_argument("--warmup", type=int, default=5, help="uncounted rounds before")
    parser.add_argument("--peers", default=",".join(PEERS), help="in the order of a round")
    parser.add_argument("--rootfs", choices=("plain", "host"), default="plain")
    parser.add_argument("--gap", type=float, default=0.05, help="idle seconds after each sample")
    parser.add_argument("--base", default="/tmp", help="where the work directory is made")
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args(arguments)
    unknown = set(options.peers.split(",")) - set(PEERS)
    if unknown or options.samples < 1:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}" if unknown else "--samples")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    result = harness.header("start", arguments)
    harness.isolate()
    work = harness.open_workspace(options.rootfs, base=options.base)
    watcher = harness.Watcher(work.mark / "fifo")
    peers: list[Peer] = []
    try:
        peers, missing = prepare_peers(options.peers.split(","), work)
        samples = measure(peers, watcher, options)
    finally:
        for peer in peers:
            peer.close()
        watcher.close()
        harness.close_workspace(work)
    results = {peer.name: {"does": peer.does, **samples[peer.name].summary()} for peer in peers}
    factors = ratios(results)
    result |= {
        "rootfs": options.rootfs,
        "file_system": harness.file_system_of(options.base),
        "gap_seconds": options.gap,
    }
    result |= {"peers": results, "missing": missing, "ratios": factors}
    print_table(results, factors)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
