"""The engine: Docker's flow, joined from network, storage, runtime and streams."""
