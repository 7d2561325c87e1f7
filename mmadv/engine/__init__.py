"""Loops, and the command lines that run them."""

from mmadv.engine.attack_test_loop import AttackTestLoop

__all__ = ['AttackTestLoop']
