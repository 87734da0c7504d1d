"""`python -m pynetns`: the command line."""

from .cli.main import entry

entry()
