"""What a program may do: capabilities, system calls, security options."""
