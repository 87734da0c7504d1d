"""What can be done with a container, a module for each verb. A verb never relies on another's insides."""
