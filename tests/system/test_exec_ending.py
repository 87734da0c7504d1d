"""exec against a container that ends at that very moment: it ran, or Conflict says why not."""

from __future__ import annotations

import pytest

from pynetns import errors

pytestmark = pytest.mark.root


@pytest.mark.parametrize("milliseconds", [10, 30, 60, 90])
def test_exec_while_the_container_ends(engine, milliseconds):
    for _ in range(4):
        container = engine.containers.run(
            "host", ["sleep", f"{milliseconds / 1000}"], detach=True, network="none"
        )
        with pytest.raises(errors.Conflict, match="is not running"):
            while True:
                code, _ = container.exec_run(["true"])
                assert code in (0, 137)
        container.wait()
        container.remove()
