"The slider counts as the evaluation does, where labels are unknown as well."
import numpy as np
import pytest

from ecg_nbdev.predictions import Predictions
from ecg_nbdev.thresholds import Thresholds
from ecg_nbdev.widget import threshold_slider

pytestmark = pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore')


def test_unknown_labels_are_not_counted():
    rng = np.random.default_rng(0)
    truth = np.eye(9, dtype=bool)[rng.integers(9, size=200)]
    known = rng.uniform(size=truth.shape) > .2
    prob = np.clip(.5*truth+rng.uniform(0, .5, truth.shape), 0, 1)
    preds = Predictions(np.arange(200), prob, truth & known, 'valid', known=known)
    slider = threshold_slider(preds, Thresholds(np.full(9, .4)))
    part = slider.evaluation.part
    hit, missed, false = ((cell & part.known).sum(0) for cell in (
        part.truth & part.answer, part.truth & ~part.answer, ~part.truth & part.answer))
    table = slider.table().iloc[:9]
    assert table.hit.tolist() == hit.tolist() and table.missed.tolist() == missed.tolist()
    assert table.false.tolist() == false.tolist()
    assert '<svg' in slider._repr_mimebundle_()['text/html']
