"""Output and input of containers as bytes: logs, framing, terminals.

Imports nothing of network, storage or runtime; the engine brings them together.
"""
