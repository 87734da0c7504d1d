"""docker-py's objects over the engine's verbs: Engine, its containers and images."""
