"""The OCI spec of a container: pure, from its configuration and what the machine has."""
