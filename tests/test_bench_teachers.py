"The forest that teaches beside the networks: what it says stands beside the recordings that the student sees."
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ecg_nbdev.labels import label_states
from ecg_nbdev.metrics import macro_auroc
from ecg_nbdev.pretrain import simulated_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'bench'))
from shipped import forest as module  # noqa: E402

@pytest.mark.filterwarnings('ignore')
def test_the_students_targets_are_the_forests_probabilities(tmp_path, monkeypatch):
    stores = [simulated_store(40, 1), simulated_store(40, 2), simulated_store(200, 3)]
    small = {'STREAM': tmp_path, 'STUDENT': range(2), 'FOREST': range(2, 3), 'stream': lambda i: stores[i],
             'forest': partial(module.forest, trees=50)}
    for name, value in small.items(): monkeypatch.setattr(module, name, value)
    answers = module.forest_answers()
    assert answers.shape == (2, 40, 9) and (answers >= 0).all() and (answers <= 1).all()
    index = module.answered_stream(1).index
    assert np.array_equal(module.forest_targets(index), answers[1]) and 'labels' in index
    truth, known = label_states(index)
    assert macro_auroc(truth, answers[1], known) > .65  # the rows of recordings and answers agree
    monkeypatch.setattr(module, 'forest', lambda *args: pytest.fail('asked again'))
    assert np.array_equal(module.forest_answers(), answers)
