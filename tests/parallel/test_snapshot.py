"""What DeepSpeed's state becomes on its way into a file that no code runs from."""

import io
import pickle

import pytest
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum

from qwen_core.parallel.snapshot import Copies, load_harmless


def _there_and_back(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return load_harmless(file)


def test_enumerations_of_pythons_that_pickle_them_as_a_call_come_back(monkeypatch):
    monkeypatch.setattr(ZeroStageEnum, "__reduce_ex__", lambda self, _: (getattr, (type(self), self.name)))
    state = {"optimizer_state_dict": {"zero_stage": ZeroStageEnum.weights, "partitions": [2, ZeroStageEnum.gradients]}}
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        _there_and_back(state)
    assert _there_and_back(Copies().of(state)) == state


def test_copies_are_apart_from_the_weights_and_their_memory_is_used_again():
    copies, weight = Copies(), torch.ones(3)
    copies.begin()
    taken = copies.of({"weights": (weight, [weight * 2])})
    weight += 1
    assert taken["weights"][0].tolist() == [1, 1, 1] and taken["weights"][1][0].tolist() == [2, 2, 2]
    copies.begin()
    assert copies.of(weight).data_ptr() == taken["weights"][0].data_ptr()
