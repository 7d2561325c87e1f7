"""Loops, and the command lines that run them."""

from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.channels_last_hook import ChannelsLastHook
from mmadv.engine.pag_target_hook import PAGTargetHook

__all__ = ['AttackTestLoop', 'ChannelsLastHook', 'PAGTargetHook']
