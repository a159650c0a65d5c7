"The study of networks goes on where it stopped, and its tables come from what is kept."
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ecg_nbdev.data import WindowDataset, make_targets
from ecg_nbdev.labels import label_states
from ecg_nbdev.pretrain import simulated_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'bench'))
from family.fits import Fit, load_checkpoint, read_log, train  # noqa: E402
from family.plan import NETWORKS, Plan  # noqa: E402
from family.stages import Held, Stages, claimed, cost  # noqa: E402
from family.tables import drawn, write_tables  # noqa: E402

STORES = [simulated_store(32, seed) for seed in (1, 2, 3)]

def stream(epoch): return STORES[epoch]

def plan(folder, **options):
    settings = dict(networks=('lead', 'joint'), seeds=(0, 1), rates=(1e-3, 3e-3), epochs=3, search=1, n=32, held=30,
                    batch=16, runs=folder)
    return Plan(**{**settings, **options})

@pytest.mark.parametrize('network', ['crnn', 'resnet1d'])
def test_a_fit_that_was_stopped_ends_with_the_same_weights(tmp_path, network):
    held, fit = Held.of(simulated_store(20, 9)), Fit(network, 1e-3, 0, 3)
    once = train(fit, stream, held, plan(tmp_path/'a'))
    in_parts = plan(tmp_path/'b')
    assert len(train(fit, stream, held, in_parts, most=1)[1]) == 1
    torch.manual_seed(99)
    twice = train(fit, stream, held, in_parts)
    assert [r['auroc'] for r in once[1]] == [r['auroc'] for r in twice[1]]
    for name, w in once[0].state_dict().items(): assert torch.equal(w, twice[0].state_dict()[name]), name
    assert not list(tmp_path.rglob('*.p*')) and read_log(fit.path(in_parts.runs))[-1]['windows'] == 96

def test_every_network_answers_with_nine_logits():
    for name, create in NETWORKS.items():
        model = create().eval()
        assert model(torch.randn(2, 12, 1000).masked_fill(torch.rand(2, 12, 1) < .2, float('nan'))).shape == (2, 9), name
    assert sum(p.numel() for p in NETWORKS['resnet1d']().parameters()) <= 1e6

def test_two_processes_do_not_take_the_same_fit(tmp_path):
    with claimed(tmp_path/'x') as first, claimed(tmp_path/'x') as second: assert first and not second
    with claimed(tmp_path/'x') as again: assert again

def real_recordings():
    "Simulated recordings in place of the real ones."
    store = simulated_store(40, 5)
    store.index['source'] = np.where(np.arange(40) % 2, 'cpsc2018', 'georgia')
    truth, known = label_states(store.index)
    return SimpleNamespace(store=store, truth=truth, known=known, source=store.index.source.to_numpy(),
                           patient=np.arange(40), windows=WindowDataset(store, range(40), make_targets(store.index), 1000))

@pytest.mark.filterwarnings('ignore')
def test_the_study_from_search_to_tables(tmp_path, monkeypatch):
    from family import stages as module
    monkeypatch.setattr(module, 'finetune', lambda model, *args, **kw: SimpleNamespace(model=model))
    stages = Stages(plan(tmp_path, epochs=2), stream, real_recordings())
    assert cost(stages.plan, STORES[0]).left.gt(0).all()
    stages.run()
    write_tables(stages, folder=tmp_path)
    table = pd.read_csv(tmp_path/'networks_scores.csv')
    assert (table.groupby('score')['best in'].sum().round(6) == 1).all() and (table.seeds == 2).all()
    counted = table[table.score == 'real, pooled'].recordings
    assert (counted == stages.real.truth.any(1).sum()).all() and not stages.real.truth.any(1).all()
    assert (table.low <= table.high).all() and table.score.str.contains('without').sum() == 2
    assert pd.read_csv(tmp_path/'networks_curves.csv').windows.max() == 64
    monkeypatch.setattr(module, 'train', lambda *args, **kw: pytest.fail('trained again'))
    stages.run()

def test_seeds_enter_the_interval():
    scores = {0: np.full(201, .8), 1: np.full(201, .9)}
    d = drawn([0, 1], lambda p: scores[p], 200, 0)
    assert d[0] == pytest.approx(.85) and set(np.round(d[1:], 6)) == {.8, .85, .9}
