"""What the commands end with; docs/architecture.md lists them for people."""

EXIT_FAILED, EXIT_USAGE, EXIT_NOTHING = 1, 2, 99
