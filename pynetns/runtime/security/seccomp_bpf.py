"""Tables of decisions as a BPF program: small and shallow.

Owns: decision trees, conditions on arguments, the layout of jumps. Knows nothing of profiles.
Source: linux/bpf_common.h, uapi/linux/seccomp.h; Documentation/userspace-api/seccomp_filter.rst.

A program is built as a graph of nodes in which equal parts are one, then laid out backwards, so
that each jump goes forward. Both its size and its depth cost time at each start: the kernel
translates every instruction and walks the filter once for each call (seccomp_cache_prepare).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from .seccomp_rules import (
    AARCH64,
    BAD_ARCHITECTURE,
    TOKENS,
    WORD,
    X86_64,
    Compare,
    Conditional,
    Table,
    Unsupported,
)

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# struct sock_filter: code, jump if true, jump if false, operand
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_EQUAL, _AT_LEAST = 0x15, 0x35
_LONGEST_JUMP = 255
# struct seccomp_data
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_WIDE = frozenset((TOKENS[X86_64], TOKENS[AARCH64]))
_X32_START = 0x40000000
_END = 1 << 64

Pieces = list[tuple[int, int]]  # (first value, node), up to the next one's


class Graph:
    """Nodes of a program, each made once: (code, operand, node if true, node if false)."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, int, int]] = []
        self._known: dict[tuple[int, int, int, int], int] = {}

    def _node(self, code: int, operand: int, yes: int = -1, no: int = -1) -> int:
        key = (code, operand, yes, no)
        if key not in self._known:
            self._known[key] = len(self._nodes)
            self._nodes.append(key)
        return self._known[key]

    def answer(self, value: int) -> int:
        """Ends the program."""
        return self._node(_RETURN, value)

    def load(self, offset: int, then: int) -> int:
        """Loads a word of struct seccomp_data; nothing where the rest does not look at it."""
        return then if self._ignores(then) else self._node(_LOAD, offset, then)

    def mask(self, bits: int, then: int) -> int:
        """Keeps `bits` of the loaded word."""
        return self._node(_AND, bits, then)

    def equal(self, value: int, yes: int, no: int) -> int:
        """Compares the loaded word."""
        return yes if yes == no else self._node(_EQUAL, value, yes, no)

    def at_least(self, value: int, yes: int, no: int) -> int:
        """Compares the loaded word."""
        return yes if yes == no else self._node(_AT_LEAST, value, yes, no)

    def _ignores(self, node: int) -> bool:
        return self._nodes[node][0] in (_RETURN, _LOAD)

    def assemble(self, root: int) -> bytes:
        """struct sock_filter[]. Raises Unsupported for a program beyond the kernel's limit."""
        layout = _Layout(self._nodes)
        layout.place(root)
        layout.join(root)
        if len(layout.backwards) > MAX_INSTRUCTIONS:
            raise Unsupported(f"{len(layout.backwards)} instructions")
        return b"".join(struct.pack("=HBBI", *one) for one in reversed(layout.backwards))


class _Layout:
    """Instructions from the last to the first; a node's position is its index in that order."""

    def __init__(self, nodes: Sequence[tuple[int, int, int, int]]) -> None:
        self.backwards: list[tuple[int, int, int, int]] = []
        self._nodes = nodes
        self._at: dict[int, int] = {}

    def place(self, root: int) -> None:
        """`root` and all that it leads to, what is jumped to first. Without recursion: a profile may
        chain thousands of conditions."""
        waiting = [root]
        while waiting:
            node = waiting[-1]
            _, _, yes, no = self._nodes[node]
            missing = [one for one in (no, yes) if one >= 0 and one not in self._at]
            if node in self._at:
                waiting.pop()
            elif missing:
                waiting.append(missing[0])
            else:
                waiting.pop()
                self._place_one(node)

    def _place_one(self, node: int) -> None:
        code, operand, yes, no = self._nodes[node]
        if code == _RETURN:
            self._put(node, (code, 0, 0, operand))
        elif code in (_LOAD, _AND):
            self.join(yes)
            self._put(node, (code, 0, 0, operand))
        else:
            self._reach(no, _LONGEST_JUMP - 1)  # the other one may need an instruction between
            self._reach(yes, _LONGEST_JUMP)
            self._put(node, (code, self._distance(yes), self._distance(no), operand))

    def join(self, node: int) -> None:
        """Makes the next instruction lead to `node` without a jump of its own."""
        self._reach(node, 0)

    def _reach(self, node: int, longest: int) -> None:
        distance = self._distance(node)
        if distance <= longest:
            return
        code, operand, _, _ = self._nodes[node]
        # A second copy of an answer is as short as a jump to the first.
        self._put(node, (code, 0, 0, operand) if code == _RETURN else (_JUMP, 0, 0, distance))

    def _distance(self, node: int) -> int:
        return len(self.backwards) - 1 - self._at[node]

    def _put(self, node: int, instruction: tuple[int, int, int, int]) -> None:
        self._at[node] = len(self.backwards)
        self.backwards.append(instruction)


def generate(default: int, tables: Sequence[Table]) -> bytes:
    """The filter for these tables, struct sock_filter[]; any other architecture's calls are
    refused. Raises Unsupported."""
    graph = Graph()
    program = graph.answer(BAD_ARCHITECTURE)
    for table in reversed(tables):
        program = graph.equal(table.token, _numbers(graph, default, table), program)
    return graph.assemble(graph.load(_ARCHITECTURE, program))


def _numbers(graph: Graph, default: int, table: Table) -> int:
    """The tree over the call's number."""
    otherwise = graph.answer(default)
    pieces = []
    for start, decision in table.pieces:
        if isinstance(decision, Conditional):
            wide = table.token in _WIDE and start < _X32_START
            node = _condition(graph, decision, otherwise, wide)
        else:
            node = graph.answer(decision)
        pieces.append((start, node))
    return graph.load(_NUMBER, Tree(graph, pieces, WORD).root())


class Tree:
    """A binary decision over ranges of the loaded word, each piece's node at its leaves."""

    def __init__(self, graph: Graph, pieces: Pieces, end: int) -> None:
        self._graph = graph
        self._pieces = [
            piece
            for index, piece in enumerate(pieces)
            if index == 0 or piece[1] != pieces[index - 1][1]
        ]
        self._ends = [start for start, _ in self._pieces[1:]] + [end]
        self._costs: dict[tuple[int, int], tuple[int, int, int]] = {}

    def root(self) -> int:
        return self._build(0, len(self._pieces))

    def _build(self, first: int, last: int) -> int:
        """The pieces first…last-1."""
        pieces = self._pieces
        if last - first == 1:
            return pieces[first][1]
        if self._is_exception(first, last):
            start, node = pieces[first + 1]
            return self._graph.equal(start, node, pieces[first][1])
        _, left, right = self._split(first, last)
        # A piece on both sides is cut anywhere inside.
        at = pieces[right][0] if left == right else pieces[right][0] + 1
        return self._graph.at_least(at, self._build(right, last), self._build(first, left))

    def _is_exception(self, first: int, last: int) -> bool:
        """One value between two ranges of the same decision: one comparison."""
        pieces = self._pieces
        return (
            last - first == 3
            and pieces[first][1] == pieces[first + 2][1]
            and pieces[first + 2][0] - pieces[first + 1][0] == 1
        )

    def _split(self, first: int, last: int) -> tuple[int, int, int]:
        """(instructions, end of the left part, start of the right): the cheapest cut near the
        middle, so that the tree stays shallow."""
        key = (first, last)
        if key not in self._costs:
            middle = (first + last) // 2
            cuts = [
                (left, right)
                for right in range(max(first, middle - 2), min(last, middle + 3))
                for left in (right, right + 1)
                if self._is_cut(first, left, right, last)
            ]
            self._costs[key] = min(
                (1 + self._cost(first, left) + self._cost(right, last), left, right)
                for left, right in cuts
            )
        return self._costs[key]

    def _is_cut(self, first: int, left: int, right: int, last: int) -> bool:
        inside = self._ends[right] - self._pieces[right][0] > 1 if left != right else True
        return (
            inside and left - first < last - first and last - right < last - first and left > first
        )

    def _cost(self, first: int, last: int) -> int:
        if last - first == 1:
            return 0
        if self._is_exception(first, last):
            return 1
        return self._split(first, last)[0]


def _condition(graph: Graph, decision: Conditional, otherwise: int, wide: bool) -> int:
    """Any rule of `decision`, tried one after the other."""
    yes, node = graph.answer(decision.action), otherwise
    plain: dict[int, list[Compare]] = {}
    others = []
    for rule in decision.rules:
        if len(rule) == 1 and rule[0].op != "MASKED_EQ":
            plain.setdefault(rule[0].index, []).append(rule[0])
        else:
            others.append(rule)
    for rule in reversed(others):
        node = _all_of(graph, rule, yes, node, wide)
    for index, compares in plain.items():
        node = _argument(graph, index, _ranges(compares), yes, node, wide)
    return node


def _all_of(graph: Graph, rule: Iterable[Compare], yes: int, no: int, wide: bool) -> int:
    for compare in rule:
        if compare.op == "MASKED_EQ":
            yes = _masked(graph, compare, yes, no, wide)
        else:
            yes = _argument(graph, compare.index, _ranges([compare]), yes, no, wide)
    return yes


def _offset(index: int, upper: bool) -> int:
    return _ARGUMENTS + 8 * index + 4 * upper  # both architectures are little-endian


def _masked(graph: Graph, compare: Compare, yes: int, no: int, wide: bool) -> int:
    for upper in (False, True) if wide else (False,):
        shift = 32 * upper
        bits, value = compare.mask >> shift & (WORD - 1), compare.value >> shift & (WORD - 1)
        if bits == 0:
            continue
        node = graph.equal(value, yes, no)
        if bits != WORD - 1:
            node = graph.mask(bits, node)
        yes = graph.load(_offset(compare.index, upper), node)
    return yes


_HOLDS: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    # op -> (first value, value after the last) of where it holds
    "EQ": lambda value: [(value, value + 1)],
    "NE": lambda value: [(0, value), (value + 1, _END)],
    "LT": lambda value: [(0, value)],
    "LE": lambda value: [(0, value + 1)],
    "GT": lambda value: [(value + 1, _END)],
    "GE": lambda value: [(value, _END)],
}


def _ranges(compares: Iterable[Compare]) -> list[tuple[int, int]]:
    """Where any of them holds: sorted, apart from each other."""
    wanted = sorted(
        (start, end)
        for compare in compares
        for start, end in _HOLDS[compare.op](compare.value)
        if start < end
    )
    result: list[tuple[int, int]] = []
    for start, end in wanted:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def _argument(
    graph: Graph, index: int, ranges: list[tuple[int, int]], yes: int, no: int, wide: bool
) -> int:
    """Whether an argument lies in `ranges`: a tree over its upper half, then over its lower."""
    if not wide:
        lower = _words(ranges, 0, yes, no)
        return graph.load(_offset(index, False), Tree(graph, lower, WORD).root())
    edges = {edge for both in ranges for edge in both if edge < _END}
    uppers = {0} | {edge >> 32 for edge in edges} | {(edge >> 32) + 1 for edge in edges}
    pieces = []
    for upper in sorted(one for one in uppers if one < WORD):
        tree = Tree(graph, _words(ranges, upper, yes, no), WORD).root()
        needs_lower = tree not in (yes, no)
        pieces.append((upper, graph.load(_offset(index, False), tree) if needs_lower else tree))
    tree = Tree(graph, pieces, WORD).root()
    return tree if tree in (yes, no) else graph.load(_offset(index, True), tree)


def _words(ranges: Iterable[tuple[int, int]], upper: int, yes: int, no: int) -> Pieces:
    """The pieces of the lower half where the upper one is `upper`."""
    base = upper << 32
    pieces = [(0, no)]
    for start, end in ranges:
        first, after = max(start - base, 0), min(end - base, WORD)
        if first < after:
            pieces = [piece for piece in pieces if piece[0] < first]
            pieces.append((first, yes))
            if after < WORD:
                pieces.append((after, no))
    return pieces
