"""The driver of network "host": the namespace of the machine itself.

Owns: that a container on it gets no namespace. Docker's host driver.
"""

from __future__ import annotations

from .null import NullDriver


class HostDriver(NullDriver):
    """As the null driver, but in nobody's namespace but the host's."""

    name = "host"
    own_namespace = False
