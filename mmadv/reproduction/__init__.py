"""Experiments of the papers that are small enough to repeat completely, in pure torch."""
