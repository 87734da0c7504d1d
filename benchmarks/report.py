"""Writes docs/benchmarks.md, and a plot beside it, from result files.

    python benchmarks/report.py benchmarks/results/*.json

Owns: the text around the figures. Every figure comes from a file that a bench_*.py wrote; a bench
without a result file has no section.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import plots

DOCS = Path(__file__).resolve().parent.parent / "docs"
Result = dict[str, Any]

_INTRODUCTION = """\
# Benchmarks

Written by `python benchmarks/report.py` from the files in `benchmarks/results/`; do not edit.

## What is measured

- **Start mark**: immediately before the call that starts: `container.start()`, the request to
  dockerd, the command of runc, crun and bwrap (started by a small C program, not from Python).
- **End mark**: the first byte that the container's own program writes into a FIFO of the host that
  is bind-mounted into the container. One C process observes it for all contenders.
- **Cold**: the container was created beforehand, nothing else was prepared for it.
- **Floor**: `benchmarks/floor.c`, a bare C program that does the kernel work of such a start in the
  best known order and nothing else: no state, no checks, no log, no exit code kept. It does one
  thing after the other on one thread; pynetns overlaps what is independent, which needs a second
  CPU that is idle: where all CPUs are busy its ratio is nearer to the sum of its parts.
- All contenders run in the same private network and mount namespace and take turns (A B C A B C …)
  with an idle gap after each. A time without its ratio to the floor of the same run says little:
  machines differ and are noisy.
- Removal is not part of a sample. Contenders that could not run are listed as missing.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f}" if microseconds < 100_000 else f"{microseconds / 1000:.0f}"


def provenance(result: Result) -> str:
    """The command that made the figures, when and where."""
    facts = result["environment"]
    versions = "; ".join(facts["versions"].values())
    return (
        f"`{result['command']}`, {result['date']}. Linux {facts['kernel']} ({facts['machine']}), "
        f"{facts['cpus']} × {facts['cpu']}, {facts['memory_mib']} MiB, cgroups {facts['cgroups']}, "
        f"Python {facts['python']}, containers on {result['file_system']}. {versions}. "
        f"Load before: {facts['load_before']:.2f}."
    )


def plot_name(result: Result) -> str:
    return f"benchmarks-start-{result['rootfs']}.svg"


def missing(result: Result) -> str:
    return "".join(f"\nMissing: {name}: {why}\n" for name, why in result["missing"].items())


# ---- sections ----


def start_section(result: Result) -> str:
    peers = result["peers"]
    base = "an almost empty directory" if result["rootfs"] == "plain" else "the machine's own files"
    parts = [f"## Cold start, root file system: {base}", provenance(result)]
    parts += [table(_START_HEAD, _start_rows(result)), _differences(peers) + missing(result)]
    parts.append(f"![p50 to p99 of each contender]({plot_name(result)})")
    if "steps" in peers.get("floor", {}):
        steps = peers["floor"]["steps"]
        parts.append("Where the floor's time goes (p50 of each step, µs):")
        parts.append(table(("step", "µs"), [(k, f"{v:.0f}") for k, v in steps.items()]))
    return "\n\n".join(parts)


_START_HEAD = (
    "contender", "n", "first byte p50 ms", "p90", "p99", "call returns p50", "p90", "p99",
    "p50 to floor", "to pynetns",
)  # fmt: skip


def _start_rows(result: Result) -> Iterable[list[object]]:
    ratios = result["ratios"]
    for name, peer in result["peers"].items():
        first, returned = peer["first_byte"], peer.get("call_return")
        row: list[object] = [name, first["n"]]
        row += [milliseconds(first[key]) for key in ("p50", "p90", "p99")]
        row += [milliseconds(returned[k]) if returned else "–" for k in ("p50", "p90", "p99")]
        row += [ratios.get(base, {}).get(name, "–") for base in ("to_floor", "to_pynetns")]
        yield row


def _differences(peers: Result) -> str:
    lines = [f"- {name}: {peer['does']}" for name, peer in peers.items()]
    return "What a start comprises:\n\n" + "\n".join(lines) + "\n"


def density_section(result: Result) -> str:
    head = (
        "contender", "few: p50 ms", "p90", f"{result['live']} live: p50 ms", "p90", "ratio of p50",
        "helper KiB with 1", f"with {result['live']}", "KiB a container",
    )  # fmt: skip
    rows = []
    for name, peer in result["peers"].items():
        few, many, memory = peer["few"]["first_byte"], peer["many"]["first_byte"], peer["helper"]
        row: list[object] = [name, milliseconds(few["p50"]), milliseconds(few["p90"])]
        row += [milliseconds(many["p50"]), milliseconds(many["p90"]), peer["ratio"]]
        row += [memory["one"]["rss_kib"], memory["all"]["rss_kib"], peer["kib_per_container"]]
        rows.append(row)
    text = (
        f"Starts with at most twenty live containers against starts with {result['live']}. The "
        "floor's ratio is the kernel's own growth. The helper is the process (or processes) that a "
        f"live container needs: {_helpers(result['peers'])}."
    )
    parts = [f"## Density: {result['live']} live containers", provenance(result), text]
    return "\n\n".join([*parts, table(head, rows), missing(result)]).rstrip()


def _helpers(peers: Result) -> str:
    return ", ".join(
        f"{name}: `{peer['helper']['name']}` ({peer['helper']['all']['processes']})"
        for name, peer in peers.items()
    )


_SECTIONS: dict[str, Callable[[Result], str]] = {
    "start": start_section,
    "density": density_section,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("results", nargs="+", type=Path, help="files that bench_*.py wrote")
    parser.add_argument("--output", type=Path, default=DOCS / "benchmarks.md")
    options = parser.parse_args(arguments)
    results = [json.loads(path.read_text()) for path in options.results]
    order = list(_SECTIONS)
    results.sort(key=lambda result: (order.index(result["bench"]), result["rootfs"] != "plain"))
    sections = [_SECTIONS[result["bench"]](result) for result in results]
    for result in results:
        if result["bench"] == "start":
            bars = {name: peer["first_byte"] for name, peer in result["peers"].items()}
            (options.output.parent / plot_name(result)).write_text(plots.quantile_bars(bars))
    options.output.write_text("\n\n".join([_INTRODUCTION.rstrip(), *sections]) + "\n")
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
