"""What the command lines in tools/ run: arguments, the run itself, and what it writes."""
