"""Whether a start stays as fast when many containers live, and what a live container costs.

    python benchmarks/bench_density.py --live 500 --peers floor,pynetns --json FILE

Each contender in its turn: rounds of twenty starts with (nearly) nobody else alive, then it is
filled up, then the same rounds among --live containers. Compared are the medians of the two sets of
rounds. The memory of the processes that serve the containers is read from /proc. Needs root;
everything happens in private namespaces.
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

ROUND = 20  # starts in a round, so that "few" means 0 to 20 live


class Level:
    """What was measured with about the same number of live containers, ns."""

    def __init__(self) -> None:
        self.first_byte: list[int] = []
        self.call_return: list[int] = []
        self.steps: defaultdict[str, list[int]] = defaultdict(list)

    def summary(self) -> dict[str, Any]:
        result: dict[str, Any] = {"first_byte": harness.quantiles(self.first_byte)}
        if self.call_return:
            result["call_return"] = harness.quantiles(self.call_return)
        result["steps"] = {name: harness.quantiles(v)["p50"] for name, v in self.steps.items()}
        return result


def start(peer: Peer, watcher: harness.Watcher, i: int, level: Level | None) -> None:
    """Start container `i`, which stays; `level` None: not counted."""
    peer.create(i)
    times = peer.start(i)
    first = watcher.first_byte()
    if level is None:
        return
    level.first_byte.append(first - times.called)
    if times.returned is not None:
        level.call_return.append(times.returned - times.called)
    for name, value in peer.steps().items():
        level.steps[name].append(value)


def play_rounds(peer: Peer, watcher: harness.Watcher, live: int, rounds: int) -> Level:
    """Start ROUND containers above the `live` ones, remove them, several times. The first round is
    not counted: it pays for memory that nobody has used before."""
    level = Level()
    for number in range(rounds + 1):
        for i in range(live, live + ROUND):
            start(peer, watcher, i, level if number else None)
        for i in range(live, live + ROUND):
            peer.remove(i)
        harness.settle(1)
    return level


def helper_memory(peer: Peer, before: set[int]) -> dict[str, int]:
    """Number and resident KiB of the contender's helper processes that were not there `before`."""
    pids = harness.processes_named(peer.helper) - before if peer.helper else set()
    return {"processes": len(pids), "rss_kib": sum(map(harness.resident_kib, pids))}


def measure(peer: Peer, watcher: harness.Watcher, live: int, rounds: int) -> dict[str, Any]:
    """Both sets of rounds, and the memory with nobody and with `live` containers alive."""
    before = harness.processes_named(peer.helper) if peer.helper else set()
    try:
        peer.prepare()
        start(peer, watcher, 0, None)  # the helpers that exist only with a container
        one = helper_memory(peer, before)
        few = play_rounds(peer, watcher, 1, rounds)
        for i in range(1, live):
            start(peer, watcher, i, None)
        all_of_them = helper_memory(peer, before)
        many = play_rounds(peer, watcher, live, rounds)
        for i in range(live):
            peer.remove(i)
    finally:
        peer.close()
    few_p50 = harness.quantiles(few.first_byte)["p50"]
    many_p50 = harness.quantiles(many.first_byte)["p50"]
    grown = all_of_them["rss_kib"] - one["rss_kib"]
    return {
        "does": peer.does,
        "few": few.summary(),
        "many": many.summary(),
        "ratio": round(many_p50 / few_p50, 2),
        "helper": {"name": peer.helper, "one": one, "all": all_of_them},
        "kib_per_container": round(grown / (live - 1), 1),
    }


def print_table(results: dict[str, dict[str, Any]]) -> None:
    print(f"{'':9}{'few p50':>11}{'many p50':>11} us  ratio  helper KiB: one, all, each")
    for name, result in results.items():
        few, many = (result[level]["first_byte"]["p50"] for level in ("few", "many"))
        memory = [result["helper"][key]["rss_kib"] for key in ("one", "all")]
        line = f"{name:9}{few:11.1f}{many:11.1f}{result['ratio']:10.2f}"
        print(f"{line}  {memory[0]}, {memory[1]}, {result['kib_per_container']}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--live", type=int, default=500, help="containers that stay")
    parser.add_argument("--rounds", type=int, default=5, help="of twenty starts, per level")
    parser.add_argument("--peers", default="floor,pynetns", help="one after the other")
    parser.add_argument("--rootfs", choices=("plain", "host"), default="plain")
    parser.add_argument("--memory", type=float, default=4, help="GiB to touch and free before")
    parser.add_argument("--base", default="/tmp", help="where the work directory is made")
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args(arguments)
    unknown = set(options.peers.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    if options.live < 2 or options.rounds < 1:
        parser.error("--live must be at least 2, --rounds at least 1")
    return options


def run(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """(results, reasons of the missing), each contender in a work directory of its own."""
    results: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for name in options.peers.split(","):
        work = harness.open_workspace(options.rootfs, stay=True, base=options.base)
        watcher = harness.Watcher(work.mark / "fifo")
        try:
            peer = make_peer(name, work)
            reason = peer.available()
            if reason is None:
                results[name] = measure(peer, watcher, options.live, options.rounds)
            else:
                missing[name] = reason
                print(f"missing: {name}: {reason}", file=sys.stderr)
        finally:
            watcher.close()
            harness.close_workspace(work)
        harness.settle(2)
    return results, missing


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    result = harness.header("density", arguments)
    harness.isolate()
    harness.touch_memory(options.memory)
    results, missing = run(options)
    result |= {
        "rootfs": options.rootfs,
        "file_system": harness.file_system_of(options.base),
        "live": options.live,
        "rounds": options.rounds,
    }
    result |= {"peers": results, "missing": missing}
    print_table(results)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
