"What a fastai user calls on a Learner: each works, or says in one line what to use instead."
import subprocess, sys, warnings

import matplotlib
matplotlib.use('Agg')
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Learner, noop
from fastai.callback.all import CSVLogger, EarlyStoppingCallback, MixedPrecision, ProgressCallback, SaveModelCallback
from fastai.interpret import Interpretation

from ecg_nbdev.bundle import load_bundle
from ecg_nbdev.core import BundleError, ECGError, Record, RecordError
from ecg_nbdev.data import ecg_dls
from ecg_nbdev.interpret import ECGInterpretation
from ecg_nbdev.learner import LogEpochs, ecg_learner, predict_records, predict_windows, record_states, training_history
from ecg_nbdev.metrics import macro_auroc
from ecg_nbdev.predictor import Predictor
from ecg_nbdev.saving import load_learner
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate_cohort
from ecg_nbdev.store import MemoryStore

FS, SECONDS = 100, 5.

@pytest.fixture(scope='module')
def store(): return MemoryStore(simulate_cohort(60, seed=0), fs=FS, prepare=Preparation(fs=FS))

@pytest.fixture(scope='module')
def record(): return next(iter(simulate_cohort(1, seed=9)))

def trained(approach, store, folder):
    "A Learner after one epoch."
    split = np.where(np.arange(len(store)) % 4 == 0, 'valid', 'train')
    learn = ecg_learner(ecg_dls(store, split, SECONDS, bs=32, approach=approach), 'multilead')
    learn.path = folder
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, .01)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

@pytest.fixture(scope='module')
def either(store, tmp_path_factory):
    "A Learner of each approach."
    return {name: trained(name, store, tmp_path_factory.mktemp(name)) for name in ('thresholds', 'powerset')}

@pytest.fixture(params=['thresholds', 'powerset'])
def learn(request, either): return either[request.param]

@pytest.fixture
def nine(either): return either['thresholds']

def test_predict_speaks_of_a_recording(learn, record):
    names, said, prob = learn.predict(record)
    assert [c for c, on in zip(learn.dls.classes, said) if on] == list(names)
    expected = predict_records(learn.model, learn.dls.test_dl([record]), label_sets=learn.dls.label_sets)[0]
    assert np.allclose(prob, expected, atol=1e-6)

def test_predict_says_what_cannot_be_read(learn, record):
    flat = Record(np.full_like(record.signal, np.nan), record.fs, 'empty')
    with pytest.raises(RecordError, match='empty: '): learn.predict(flat)

def test_get_preds_gives_probabilities_labels_and_losses_of_windows(learn):
    prob, target, said, losses = learn.get_preds(with_decoded=True, with_loss=True)
    n = len(learn.dls.valid.dataset)
    assert len(prob) == len(target) == len(said) == len(losses) == n and losses.ndim == 1
    assert prob.min() >= 0 and prob.max() <= 1 and prob.shape[1] == learn.dls.c
    if learn.dls.label_sets: assert torch.allclose(prob.sum(1), torch.ones(n)) and said.tolist() == prob.argmax(1).tolist()
    else: assert said.tolist() == (prob > .5).tolist()
    logits = predict_windows(learn.model, learn.dls.valid)
    assert np.allclose(losses, [learn.loss_func(logits[[i]], target[[i]]) for i in range(n)], atol=1e-5)

def test_validate_gives_the_loss_and_the_macro_auroc_of_recordings(learn):
    loss, area = learn.validate()
    valid = learn.dls.valid
    truth, known = record_states(valid.dataset, learn.dls.classes)
    assert loss > 0
    assert np.isclose(area, macro_auroc(truth, predict_records(learn.model, valid, label_sets=learn.dls.label_sets), known=known))

def test_get_preds_of_new_recordings(learn, record):
    prob, target = learn.get_preds(dl=learn.dls.test_dl([record, record]))
    assert torch.allclose(prob[:len(prob)//2], prob[len(prob)//2:], atol=1e-5)
    assert (target == -1).all() if learn.dls.label_sets else target.isnan().all()

def test_show_results_and_show_batch_draw(learn):
    import matplotlib.pyplot as plt
    for draw in (learn.show_results, learn.dls.show_batch):
        plt.close('all')
        draw(max_n=2)
        assert len(plt.get_fignums()) == 1
    plt.close('all')

def test_summary_describes_network_loss_and_callbacks(nine):
    said = nine.summary()
    assert all(name in said for name in (type(nine.model).__name__, 'Total params', type(nine.loss_func).__name__, 'GradientClip'))

def test_lr_find_suggests_and_leaves_the_weights(nine):
    before = {k: v.clone() for k, v in nine.model.state_dict().items()}
    assert 1e-7 < nine.lr_find(num_it=10, show_plot=False).valley < 10
    assert all(torch.equal(v, before[k]) for k, v in nine.model.state_dict().items())

def test_export_and_load_learner_without_a_pickle(learn, record):
    folder = learn.export('model')
    assert {p.suffix for p in folder.iterdir()} == {'.safetensors', '.json', '.md'}
    again = load_learner(folder)
    assert isinstance(again, Learner) and isinstance(load_bundle(folder), Predictor)
    assert again.predict(record)[0] == learn.predict(record)[0] and torch.equal(again.predict(record)[2], learn.predict(record)[2])
    again.dls = learn.dls
    with again.no_bar(), again.no_logging(): again.fit(1)
    assert len(training_history(again)) == 1

def test_a_pickle_is_refused(learn, tmp_path):
    with pytest.raises(ECGError, match='name a folder'): learn.export('export.pkl')
    with pytest.raises(BundleError, match='no such model folder'): load_learner(tmp_path/'export.pkl')

def test_save_and_load_keep_the_weights(nine):
    before = {k: v.clone() for k, v in nine.model.state_dict().items()}
    nine.save('weights')
    with torch.no_grad(): next(nine.model.parameters()).add_(1)
    nine.load('weights')
    assert all(torch.equal(v, before[k]) for k, v in nine.model.state_dict().items())

def test_interpretation_of_windows_and_of_recordings(learn):
    windows, recordings = Interpretation.from_learner(learn), ECGInterpretation.from_learner(learn)
    losses, idx = windows.top_losses(3)
    assert losses[0] >= losses[2] and len(windows.losses) == len(learn.dls.valid.dataset)
    assert len(recordings.losses) == len(learn.dls.valid.dataset.rows)
    windows.show_results([0, 1])
    with pytest.raises(NotImplementedError, match='use ECGInterpretation'): windows.plot_top_losses(2)

def test_callbacks_that_follow_the_table(nine):
    "Early stopping, the best weights, a CSV file, and any tracker."
    rows = []
    best = [kind('macro_auroc', comp=np.greater) for kind in (EarlyStoppingCallback, SaveModelCallback)]
    nine.fit(2, cbs=[*best, CSVLogger('history.csv'), LogEpochs(lambda row, step: rows.append((step, row)))])
    told, logged = training_history(nine).drop(columns='epoch'), pd.read_csv(nine.path/'history.csv')
    assert [step for step, _ in rows] == [0, 1][:len(told)] and len(logged) == len(told)
    assert rows[-1][1] == pytest.approx(told.iloc[-1].to_dict())
    assert np.allclose(logged[list(told)], told)
    assert nine.validate()[1] == pytest.approx(told.macro_auroc.max())

def test_mixed_precision_is_there_once(nine):
    nine.to_fp16()
    assert sum(isinstance(cb, MixedPrecision) for cb in nine.cbs) == 1
    nine.fit(1)
    nine.to_fp32()
    assert not any(isinstance(cb, MixedPrecision) for cb in nine.cbs)

def test_mixed_precision_is_there_once_on_a_gpu_too(store):
    "`ecg_learner` adds it there by itself; asked for again it stays one."
    from unittest.mock import patch
    with patch('torch.cuda.is_available', lambda: True):
        learn = ecg_learner(ecg_dls(store, np.where(np.arange(60) % 4 == 0, 'valid', 'train'), SECONDS), 'multilead')
    learn.to_fp16()
    assert sum(isinstance(cb, MixedPrecision) for cb in learn.cbs) == 1
    learn = learn.to_fp32()
    assert not any(isinstance(cb, MixedPrecision) for cb in learn.cbs)

def test_fine_tune_freezes_and_thaws(nine):
    nine.fine_tune(1)
    assert all(p.requires_grad for p in nine.model.parameters())

def test_tensorboard_where_installed(nine, tmp_path):
    pytest.importorskip('tensorboard')
    from torch.utils.tensorboard import SummaryWriter
    with SummaryWriter(tmp_path) as writer:
        def log(row, step):
            for name, value in row.items(): writer.add_scalar(name, value, step)
        nine.fit(1, cbs=LogEpochs(log))
    assert any(p.name.startswith('events') for p in tmp_path.iterdir())

def test_weights_and_biases_where_installed(nine, tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    with wandb.init(project='ecg', dir=tmp_path) as run: nine.fit(1, cbs=LogEpochs(run.log))
    held, = tmp_path.rglob('*.wandb')
    assert b'macro_auroc' in held.read_bytes()

def test_all_brings_the_safe_load_learner_and_no_torchvision():
    code = ('import sys; from ecg_nbdev.all import *; from fastai.interpret import Interpretation; '
            'print(load_learner.__module__, [m for m in sys.modules if m.startswith(("fastai.vision", "torchvision"))])')
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert said.strip() == 'ecg_nbdev.saving []'
