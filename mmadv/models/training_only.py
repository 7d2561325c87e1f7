"""Modules that are trained beside a segmentor, and that none of its state dicts holds."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MessageHub, print_log
from mmengine.model import ModuleDict
from torch import Tensor, nn

from mmadv.errors import UserError


class TrainingOnly(ModuleDict):
    """Modules that are trained with a segmentor, and that the segmentor's predictions do not use.

    No state dict holds the weights of these modules, and loading a state dict does not change the weights. A
    checkpoint of the segmentor is therefore that of the stock model. MMEngine's checkpoints hold the message hub
    beside the weights of the model. The message hub keeps the weights of these modules for a resumed run.

    Args:
        modules: name -> module.
        key: the name of the modules' weights in the message hub.
    """

    def __init__(self, modules: Mapping[str, nn.Module], key: str) -> None:
        super().__init__(modules)
        self._key = key
        self._restored = False

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = '', keep_vars: bool = False) -> Any:
        """Returns ``destination`` unchanged, or an empty dict if there is none."""
        return OrderedDict() if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Otherwise, loading would report the weights of the submodules as missing.
        for key, value in self.weights().items():
            state_dict.setdefault(prefix + key, value)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights and buffers; the tensors share memory with the modules."""
        return {f'{name}.{key}': value for name, module in self.items() for key, value in module.state_dict().items()}

    def keep(self) -> None:
        """Stores the weights for the checkpoint of this iteration.

        At the first call of a resumed run, the method first loads the weights of the run's checkpoint. Call the method
        in every training iteration, before the forward pass.

        Raises:
            UserError: the resumed checkpoint holds the weights of other modules.
        """
        hub = MessageHub.get_current_instance()
        iteration = hub.get_info('iter') or 0
        if not self._restored:
            self._restore(hub.get_info(self._key), iteration)
            self._restored = True
        # The optimiser changes the tensors in place, so the hub holds their values at the end of the iteration.
        hub.update_info(self._key, {'iteration': iteration, 'weights': self.weights()})

    def _restore(self, stored: Mapping[str, Any] | None, iteration: int) -> None:
        """Loads the stored weights if they are from the previous iteration; warns if a resumed run has none."""
        if stored is not None and stored['iteration'] + 1 == iteration:
            own, weights = self.weights(), stored['weights']
            if shapes(own) != shapes(weights):
                raise UserError(
                    f'the checkpoint that this run goes on from holds {self._key} of another network; resume with the '
                    'config that it was trained with'
                )
            for key, value in weights.items():
                own[key].copy_(value)
        elif iteration > 0:
            print_log(
                f'iteration {iteration}: no checkpoint holds the weights of {", ".join(self)}, which training alone '
                'uses; they start anew',
                logger='current',
                level=logging.WARNING,
            )


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Returns the sizes of weights by key."""
    return {key: tuple(value.shape) for key, value in weights.items()}
