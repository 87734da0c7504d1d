"""Networks of containers: namespaces, links, addresses, ports, rules, name files.

Owns: everything between a container's options and its packets. controller.py is the way in. Knows
nothing of root file systems, processes and output.
"""
