"""The command line: words in, engine calls, text out. Nothing is decided here."""
