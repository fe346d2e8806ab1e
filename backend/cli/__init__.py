"""The ``ls-clip`` commands: options, exit codes, and what is printed."""
