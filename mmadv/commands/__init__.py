"""The commands of ``mmadv``: their arguments, the run itself, and the files that it writes."""
