"""The plan of a child: what the spec says, as operations and descriptors."""
