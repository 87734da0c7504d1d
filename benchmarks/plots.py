"""Plots as SVG text, without a plotting library.

Owns: the drawing. In: quantiles in microseconds. Out: a whole SVG document.
"""

from __future__ import annotations

import math
from html import escape

_LEFT, _WIDTH, _ROW, _TOP, _BOTTOM = 90, 640, 28, 10, 34
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.tail{fill:#b9cfe6}"
    ".body{fill:#7ba3cc}.median{stroke:#123a63;stroke-width:2}"
)


def quantile_bars(peers: dict[str, dict[str, float]]) -> str:
    """One bar a contender on a logarithmic time axis: p50 (line) to p90 (dark) to p99 (light)."""
    low = math.floor(math.log10(min(q["p50"] for q in peers.values())))
    high = math.ceil(math.log10(max(q["p99"] for q in peers.values())))

    def x(microseconds: float) -> float:
        return _LEFT + (math.log10(microseconds) - low) / (high - low) * _WIDTH

    height = _TOP + _ROW * len(peers) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 40}" height="{height}">',
        f"<style>{_STYLE}</style>",
    ]
    floor_line = _TOP + _ROW * len(peers)
    for power in range(low, high + 1):
        at = x(10**power)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{floor_line}"/>')
        parts.append(
            f'<text x="{at}" y="{floor_line + 18}" text-anchor="middle">{10.0**power / 1000:g} ms'
            "</text>"
        )
    for row, (name, q) in enumerate(peers.items()):
        y = _TOP + row * _ROW
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        for kind, start, end in (("tail", "p90", "p99"), ("body", "p50", "p90")):
            left, right = x(q[start]), x(q[end])
            width = max(right - left, 1)
            parts.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{y + 6}" width="{width:.1f}" height="16"/>'
            )
        at = round(x(q["p50"]), 1)
        parts.append(f'<line class="median" x1="{at}" x2="{at}" y1="{y + 3}" y2="{y + 25}"/>')
    return "\n".join([*parts, "</svg>\n"])
