"""Experiments of the papers that are small enough to be repeated whole, in pure torch."""
