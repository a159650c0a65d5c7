"""Interpretation and watched thresholds.

Several windows per recording, both approaches, interrupted training, and no effect on what is trained."""
import matplotlib
from dataclasses import replace

import numpy as np
import pytest

matplotlib.use('agg')
from ecg_nbdev.core import CohortError
from ecg_nbdev.store import MemoryStore
from ecg_nbdev.data import ecg_dls
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.interpret import ECGInterpretation, _log_losses
from ecg_nbdev.watch import WatchThresholds
from ecg_nbdev.learner import ecg_learner, loader_predictions, predict_records, record_states, train_learner
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate_cohort
from ecg_nbdev.thresholds import Thresholds, check_unseen, fit_thresholds
from fastai.basics import Callback

pytestmark = pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore')


@pytest.fixture(scope='module')
def store():
    "Recordings whose labels are all known."
    return MemoryStore((replace(r, unknown=()) for r in simulate_cohort(60, seed=3)), prepare=Preparation(fs=100))

def loaders(store, approach='thresholds', seconds=5, jitter=0.):
    split = np.where(np.arange(len(store)) % 3 == 0, 'valid', 'train')
    return ecg_dls(store, split, seconds=seconds, bs=32, approach=approach, jitter=jitter)

def trained(store, approach='thresholds', cbs=(), **kwargs):
    learn = ecg_learner(loaders(store, approach, **kwargs), 'crnn', seed=0, cbs=cbs)
    return learn, train_learner(learn, epochs=2, lr=5e-3, show=False)


@pytest.mark.parametrize('approach', ['thresholds', 'powerset'])
def test_recordings_not_windows(store, approach):
    learn, _ = trained(store, approach)
    valid = learn.dls.valid
    assert len(valid.dataset) > len(valid.dataset.rows)
    interp = ECGInterpretation.from_learner(learn)
    prob = predict_records(learn.model, valid, label_sets=learn.dls.label_sets)
    np.testing.assert_allclose(interp.preds.prob, prob, atol=1e-9)
    np.testing.assert_array_equal(interp.preds.truth, record_states(valid.dataset, learn.dls.classes)[0])
    assert interp.preds.ids.tolist() == store.index.id.iloc[valid.dataset.rows].tolist()
    assert len(interp.losses) == len(valid.dataset.rows)


def test_a_powerset_answers_sets_and_with_thresholds_what_they_say(store):
    learn, _ = trained(store, 'powerset')
    seen = {row.tobytes() for row in learn.dls.label_sets.matrix}
    assert {row.tobytes() for row in ECGInterpretation.from_learner(learn).preds.answer} <= seen
    at = Thresholds(np.linspace(.05, .3, 9))
    interp = ECGInterpretation.from_learner(learn, thresholds=at)
    np.testing.assert_array_equal(interp.preds.answer, at.decode(interp.preds.prob))


def test_top_losses_are_sorted_and_may_be_smallest(store):
    interp = ECGInterpretation.from_learner(trained(store)[0])
    worst, which = interp.top_losses()
    assert (np.diff(worst) <= 0).all() and sorted(which) == list(range(len(interp.preds)))
    best, first = interp.top_losses(3, largest=False)
    np.testing.assert_array_equal(best, np.sort(interp.losses)[:3])
    np.testing.assert_array_equal(interp.losses[first], best)


def test_training_recordings_come_in_order_and_unmoved(store):
    learn, _ = trained(store, jitter=1.)
    a, b = (ECGInterpretation.from_learner(learn, learn.dls.train) for _ in range(2))
    np.testing.assert_array_equal(a.preds.prob, b.preds.prob)
    assert set(a.preds.role) == {'train'}
    assert a.preds.ids.tolist() == store.index.id.iloc[learn.dls.train.dataset.rows].tolist()


def test_one_window_a_recording_has_the_loss_of_the_network(store):
    learn, log = trained(store, seconds=70)
    interp = ECGInterpretation.from_learner(learn)
    assert interp.losses.mean() == pytest.approx(log.valid_loss[log.macro_auroc.argmax()], rel=1e-5)


def test_log_loss_knows_its_formula():
    truth, prob = np.array([[True, False, True]]), np.array([[.9, .2, .5]])
    assert _log_losses(truth, prob)[0] == pytest.approx(-(np.log(.9)+np.log(.8)+np.log(.5))/3)


def test_titles_say_true_said_loss_and_record(store):
    learn, _ = trained(store)
    interp = ECGInterpretation.from_learner(learn)
    fig = interp.plot_top_losses(2, seconds=3)
    titles = [next(t for t in ax.texts if t.get_gid() == 'title') for ax in fig.axes]
    for title, row in zip(titles, interp.table(interp.top_losses(2)[1]).itertuples(), strict=True):
        assert title.get_text() == f'{row.true} → {row.said} · loss {row.loss:.2f} · {row.record}'
    interp = ECGInterpretation.from_learner(learn, thresholds=Thresholds(np.full(9, .5), least=1))
    right = (interp.preds.truth == interp.preds.answer).all(1)
    assert right.any() and not right.all()
    fig = interp.show_results([right.argmax(), right.argmin()], seconds=3)
    good, bad = (next(t for t in ax.texts if t.get_gid() == 'title').get_color() for ax in fig.axes)
    assert good != bad


def test_watching_changes_nothing_that_is_trained(store):
    plain, watched = trained(store)[1], trained(store, cbs=[WatchThresholds()])[1]
    assert plain.equals(watched[plain.columns])
    assert list(watched.columns.difference(plain.columns)) == ['watched_cpsc2018_f1', 'watched_macro_f1']


@pytest.mark.parametrize('approach', ['thresholds', 'powerset'])
def test_thresholds_fit_the_weights_that_stay(store, approach):
    learn, log = trained(store, approach, cbs=[WatchThresholds()])
    prob = predict_records(learn.model, learn.dls.valid, label_sets=learn.dls.label_sets)
    preds = loader_predictions(prob, learn.dls.valid.dataset, learn.dls.classes)
    np.testing.assert_array_equal(learn.thresholds.values, fit_thresholds(preds).values)
    score = evaluate(ECGInterpretation.from_learner(learn).preds, learn.thresholds, 'valid')['macro_f1']
    assert score == pytest.approx(log.watched_macro_f1[log.macro_auroc.argmax()], abs=1e-9)


def test_the_last_epoch_need_not_be_the_best(store):
    class Spoil(Callback):
        "Ruins the weights before the last epoch is validated."
        def before_validate(self):
            if self.epoch == 2:
                for p in self.model.parameters(): p.data.zero_()
    learn = ecg_learner(loaders(store), 'crnn', seed=0, cbs=[WatchThresholds(), Spoil()])
    log = train_learner(learn, epochs=3, lr=2e-2, show=False)
    best = log.macro_auroc.argmax()
    assert best < 2 and log.watched_macro_f1[best] != log.watched_macro_f1[2]
    score = evaluate(ECGInterpretation.from_learner(learn).preds, learn.thresholds, 'valid')['macro_f1']
    assert score == pytest.approx(log.watched_macro_f1[best], abs=1e-9)


def test_a_second_and_an_interrupted_training_have_each_column_once(store):
    class Stop(Callback):
        def after_batch(self): raise KeyboardInterrupt
    learn, _ = trained(store, cbs=[WatchThresholds()])
    assert [m.name for m in learn.metrics] == ['macro_auroc']
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[Stop()])
    again = train_learner(learn, epochs=1, show=False)
    assert list(again.columns) == ['epoch', 'train_loss', 'valid_loss', 'macro_auroc',
                                   'watched_macro_f1', 'watched_cpsc2018_f1']


def test_the_learning_rate_finder_chooses_nothing(store, tmp_path):
    learn = ecg_learner(loaders(store), 'crnn', seed=0, cbs=[WatchThresholds()])
    learn.path = tmp_path
    with learn.no_bar(): learn.lr_find(num_it=5, show_plot=False)
    assert 'thresholds' not in vars(learn)


def test_recordings_that_chose_are_recognised_by_their_samples(store):
    learn, _ = trained(store)
    data = learn.dls.valid.dataset
    preds = loader_predictions(predict_records(learn.model, learn.dls.valid), data, learn.dls.classes)
    assert preds.key.tolist() == store.index.mark.iloc[data.rows].tolist()
    at = fit_thresholds(preds)
    as_test = loader_predictions(preds.prob, data, learn.dls.classes, 'test')
    with pytest.raises(CohortError, match='have chosen'): check_unseen(as_test, at)


def test_the_first_label_is_the_one_a_recording_lists_first(store):
    learn, _ = trained(store)
    data = learn.dls.valid.dataset
    index = store.index.iloc[:3].assign(labels=['PVC;AF', 'AF;PVC', ''])
    data.store = MemoryStore.of(store._signals[:3], index, store.fs)
    data.rows = np.arange(3)
    names = learn.dls.classes
    first = loader_predictions(np.zeros((3, 9)), data, names).first
    assert first.tolist() == [names.index('PVC'), names.index('AF'), -1]
