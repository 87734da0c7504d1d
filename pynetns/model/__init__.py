"""Frozen data and the parsing of what users type. No I/O."""
