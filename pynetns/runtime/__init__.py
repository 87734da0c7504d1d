"""What becomes of a container's configuration at its start: spec, plan, devices, credentials.

Imports nothing of network, storage or streams; the engine brings them together.
"""
