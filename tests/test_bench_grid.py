"The grid of pretraining on CPSC2018's folds: cells are kept, sizes nested, other data sets scored."
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.cohort import scan
from ecg_nbdev.core import CLASSES
from ecg_nbdev.pretrain import simulated_store
from ecg_nbdev.records import write_record
from ecg_nbdev.sim.synth import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'bench'))
import cpsc2018_grid as bench  # noqa: E402
import cpsc2018_simulated  # noqa: E402
from family.plan import Plan  # noqa: E402


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Simulated recordings in CPSC2018's layout."
    folder = tmp_path_factory.mktemp('cpsc')
    for i in range(54):
        write_record(simulate((CLASSES[i % 9],), 6, 100, np.random.default_rng(i), id=f'A{i+1:04d}'), folder)
    rows = [f'A{i+1:04d},{i % 9+1},,' for i in range(54)]
    (folder/'REFERENCE.csv').write_text('\n'.join(['Recording,First_label,Second_label,Third_label', *rows])+'\n')
    return folder


@pytest.mark.filterwarnings('ignore')
@pytest.mark.nightly
def test_the_grid_of_a_simulated_set(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, 'finetune', partial(bench.finetune, simulated=16, epochs=1))
    stores = simulated_store(32, 1)
    made = {'stream': lambda epoch: stores, 'n_boot': 20,
            'plan': Plan(epochs=1, n=32, held=20, batch=16, runs=tmp_path/'study')}
    asked = folder, tmp_path, bench.PRETRAINING, ['lead'], [10, 1000], 2, 3, 1, 1, 2, [str(folder)], '0/1'
    bench.run(*asked, True, **made)
    assert 'left: 0.00' in capsys.readouterr().out and not (tmp_path/'grid').exists()
    bench.run(*asked, False, **made)
    scores, gains = pd.read_csv(tmp_path/'grid.csv'), pd.read_csv(tmp_path/'grid_gains.csv')
    assert set(scores.recordings) == {10} and (scores.seeds == 2).all() and (scores.low <= scores.high).all()
    assert set(gains.pretraining) == {'simulated', 'shipped-recipe'}
    assert len(pd.read_csv(tmp_path/'grid_others.csv')) == 6
    # finished folds are not trained again, one that is missing is
    (tmp_path/'grid'/'none-lead-10-0'/'fold-1.parquet').unlink()
    learned, trained = bench.Grid.learned, []
    monkeypatch.setattr(bench.Grid, 'learned', lambda self, cell, *rows: trained.append(cell) or learned(self, cell, *rows))
    bench.run(*asked, False, **made)
    assert trained == [bench.Cell('none', 'lead', 10, 0)]


def test_a_smaller_choice_is_part_of_the_larger_one():
    grid, rows = object.__new__(bench.Grid), np.flatnonzero(np.arange(60) % 3)
    small, large = grid.rows(rows, 10, 0, 0), grid.rows(rows, 20, 0, 0)
    assert set(small) < set(large) < set(rows) and set(grid.rows(rows, None, 0, 0)) == set(rows)
    assert set(small) != set(grid.rows(rows, 10, 1, 0))


def test_a_folder_must_be_named():
    with pytest.raises(SystemExit, match='no folder of recordings'): bench.main()


def test_a_simulated_set_has_the_names_and_labels_of_the_table(folder, tmp_path):
    (tmp_path/'cpsc2018').mkdir()
    shutil.copyfile(folder/'REFERENCE.csv', tmp_path/'cpsc2018'/'REFERENCE.csv')
    cpsc2018_simulated.main(tmp_path/'out', data=str(tmp_path), n=18)
    kept, left_out, _ = bench.place(scan(tmp_path/'out').table, 3)
    assert list(kept.id) == [f'A{i+1:04d}' for i in range(18)] and list(kept.labels) == [*CLASSES]*2
    assert not len(left_out) and (kept.n_samples/kept.fs).between(6, 72).all() and kept.fs.eq(500).all()
