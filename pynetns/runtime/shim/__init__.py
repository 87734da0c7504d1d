"""Speaking to the shim: connections, requests and answers."""
