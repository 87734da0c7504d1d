"""Names for containers that were given none: an adjective and a person of computing's history."""

from __future__ import annotations

import secrets

_ADJECTIVES = """able bold brave bright calm clever cool deft eager early fair fast fine fond free
glad good grand happy keen kind lively lucid merry mild modest neat nimble noble patient plain polite
prompt proud quick quiet ready sharp silent smart steady still sunny swift tidy vivid warm wise""".split()
_PEOPLE = """allen babbage backus bartik berners booth boole brooks cerf church clarke codd conway curry
dijkstra eckert engelbart floyd goldberg hamilton hamming hoare holberton hopper iverson johnson karp kay
kernighan kilburn knuth lamport liskov lovelace mauchly mccarthy milner minsky moore naur newell
perlis ritchie shannon simon stallman tarjan thompson turing wilkes wirth zuse""".split()


def random_name() -> str:
    """A name like ``steady_hopper``; unique only by luck, the caller tries again on a conflict."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_PEOPLE)}"


def numbered_name() -> str:
    """A name that is taken by nobody in practice, for when the short ones run out."""
    return f"{random_name()}{secrets.randbelow(10**9)}"
