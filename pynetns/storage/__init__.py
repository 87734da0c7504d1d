"""Root file systems: images, writable layers, and the overlay that joins them.

Owns: everything below `<root>/overlay2`, `<root>/image`, `<root>/tmp` and
`<exec_root>/{image,shm}`. Knows nothing of networks, processes or containers beyond their ids.
"""
