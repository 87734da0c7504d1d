"""A process with pools of one of multiprocessing's kinds, beside a thread in the middle of verbs.

A program of its own (`python -m tests.pools METHOD ROOT EXEC_ROOT SECONDS`): the helper processes of
multiprocessing are its, and end with it.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import threading
import time

import pynetns

from .system.forking import run_and_remove, some_verbs


def work(root: str, exec_root: str, seed: int) -> int:
    with pynetns.Engine(root, exec_root) as engine:
        some_verbs(engine, random.Random(seed))
    return seed


def main(method: str, root: str, exec_root: str, seconds: str) -> None:
    engine = pynetns.Engine(root, exec_root)
    stop = threading.Event()
    failures: list[BaseException] = []

    def busy() -> None:
        try:
            while not stop.is_set():
                run_and_remove(engine)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=busy)
    thread.start()
    end, rounds = time.monotonic() + float(seconds), 0
    try:
        while rounds == 0 or time.monotonic() < end:
            with multiprocessing.get_context(method).Pool(3) as pool:
                jobs = [(root, exec_root, seed) for seed in range(4)]
                assert pool.starmap_async(work, jobs).get(120) == list(range(4))
                pool.close()
                pool.join()
            rounds += 1
    finally:
        stop.set()
        thread.join()
        engine.close()
    if failures:
        raise failures[0]
    print(f"{method}: {rounds} rounds of 4 jobs")


if __name__ == "__main__":
    main(*sys.argv[1:])
