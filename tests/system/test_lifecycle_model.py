"""A stateful test: random verbs on a few containers, compared with a model of Docker's states."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pynetns import errors

from ..conftest import Place

pytestmark = pytest.mark.root

NAMES = ("aa", "bb", "cc")


class Lifecycle(RuleBasedStateMachine):
    """`model`: name -> (status, exit code)."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.place.engine()
        self.model: dict[str, tuple[str, int]] = {}

    @rule(name=st.sampled_from(NAMES))
    def create(self, name):
        try:
            self.engine.containers.create("host", ["sleep", "1000"], name=name, network_mode="none")
        except errors.Conflict:
            assert name in self.model
        else:
            assert name not in self.model
            self.model[name] = ("created", 0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def start(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.engine.containers.get(name).start()
        self.model[name] = ("running", 0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def kill(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        try:
            self.engine.containers.get(name).kill()
        except errors.Conflict:
            assert self.model[name][0] != "running"
        else:
            assert self.model[name][0] == "running"
            self.model[name] = ("exited", 137)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def stop(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.engine.containers.get(name).stop(timeout=0)
        if self.model[name][0] == "running":
            self.model[name] = ("exited", 137)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), force=st.booleans())
    def remove(self, data, force):
        name = data.draw(st.sampled_from(sorted(self.model)))
        try:
            self.engine.containers.get(name).remove(force=force)
        except errors.Conflict:
            assert self.model[name][0] == "running" and not force
        else:
            del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def exec(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        try:
            code, _ = self.engine.containers.get(name).exec_run(["sh", "-c", "exit 5"])
        except errors.Conflict:
            assert self.model[name][0] != "running"
        else:
            assert (self.model[name][0], code) == ("running", 5)

    @rule()
    def another_engine_opens(self):
        self.engine.close()
        self.engine = self.place.engine()

    @invariant()
    def engine_agrees_with_the_model(self):
        seen = {
            c.name: (c.status, c.attrs["State"]["ExitCode"])
            for c in self.engine.containers.list(all=True)
        }
        assert seen == self.model
        running = {name for name, (status, _) in self.model.items() if status == "running"}
        assert len(self.engine.shim.tasks()) == len(running)
        assert len(os.listdir(f"{self.engine.exec_root}/tasks")) == len(running)
        assert len(self.engine.store.sandboxes()) == len(running)

    def teardown(self):
        for container in self.engine.containers.list(all=True):
            container.remove(force=True)


def test_lifecycle(place):
    Lifecycle.place = place
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
