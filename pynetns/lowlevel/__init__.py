"""The parts that work alone: namespaces, links, programs. No engine, no state, nothing on disk."""
