"""What a network is made of: one module per driver, under Docker's names.

Owns: the kinds of networks. base.py has what all of them are; which networks there are is in
../networks.py. A driver knows nothing of containers, of addresses being free and of other drivers.
"""
