"Label tables, multi-hot rows and label sets."
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from ecg_nbdev.core import CLASSES, CohortError
from ecg_nbdev.labels import LabelSets, co_occurrence, first_labels, label_tuples, multi_hot, read_reference

ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')
label_rows = st.lists(st.lists(st.sampled_from(CLASSES), unique=True, max_size=3).map(tuple), min_size=1, max_size=40)


@real
def test_the_complete_cpsc_table():
    labels = read_reference(Path(ECG_DATA)/'cpsc2018/REFERENCE.csv')
    Y = multi_hot(labels.values())
    assert Y.shape == (6877, 9) and labels['A0953'] == ('PAC',)
    assert Y.sum(0).tolist() == [918, 1221, 722, 236, 1857, 616, 700, 869, 220]
    assert np.bincount(Y.sum(1)).tolist() == [0, 6401, 470, 6]
    sets = LabelSets().fit(Y)
    assert len(sets) == 36 and (sets.decode(sets.encode(Y)) == Y).all()
    pairs = co_occurrence(Y)
    assert pairs.loc['AF', 'RBBB'] == 172 == np.triu(pairs.to_numpy(), 1).max()


@real
@pytest.mark.parametrize('part', ['train', 'val'])
def test_reference_agrees_with_an_independent_table(part):
    labels = read_reference(Path(ECG_DATA)/'cpsc2018/REFERENCE.csv')
    other = pd.read_csv(Path(ECG_DATA)/f'cpsc2018/demographics_{part}.csv').set_index('id')
    theirs = other[[f'label_{i}' for i in range(9)]].to_numpy(bool)
    assert (multi_hot([labels[name] for name in other.index]) == theirs).all()


@pytest.mark.parametrize('text, message', [
    ('Recording,First_label\nA1,10\n', 'A1 has the labels 10'), ('Recording,First_label\nA1,0\n', 'labels 0'),
    ('Recording,First_label\nA1,\n', 'labels none'), ('Recording,First_label\nA1,AF\n', 'labels AF'),
    ('id,x\nA1,1\n', 'a label table has Recording'), ('', 'restore it'), ('Recording\nA1\n', 'a label table has')])
def test_bad_reference(tmp_path, text, message):
    (tmp_path/'REFERENCE.csv').write_text(text)
    with pytest.raises(CohortError, match=message) as e: read_reference(tmp_path/'REFERENCE.csv')
    assert 'REFERENCE.csv' in str(e.value) and '\n' not in str(e.value)


def test_reference_spellings(tmp_path):
    (tmp_path/'REFERENCE.csv').write_text(
        '\ufeffRecording,First_label,Second_label,Third_label\r\nA1.mat,5.0,2.0,\r\nA2, 1,,\r\n')
    assert read_reference(tmp_path/'REFERENCE.csv') == {'A1': ('RBBB', 'AF'), 'A2': ('Normal',)}
    with pytest.raises(CohortError): read_reference(tmp_path/'none.csv')


@given(label_rows)
def test_multi_hot_is_reversible(rows):
    Y = multi_hot(rows)
    assert (multi_hot(label_tuples(Y)) == Y).all() and (multi_hot(';'.join(row) for row in rows) == Y).all()
    assert [set(names) for names in label_tuples(Y)] == [set(row) for row in rows]
    pairs = co_occurrence(rows).to_numpy()
    assert (pairs == pairs.T).all() and (np.diag(pairs) == Y.sum(0)).all()


@given(label_rows, st.randoms())
def test_label_sets(rows, random):
    Y = multi_hot(rows)
    sets = LabelSets().fit(Y)
    assert (sets.decode(sets.encode(Y)) == Y).all() and len(sets) == len({tuple(row) for row in Y.tolist()})
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert LabelSets().fit(multi_hot(shuffled)).sets == sets.sets
    counts = np.bincount(sets.encode(Y))
    assert (np.diff(counts) <= 0).all()
    prob = np.random.default_rng(0).dirichlet(np.ones(len(sets)), 5).astype(np.float32)
    marginals = sets.marginals(prob)
    assert marginals.dtype == np.float32 and marginals.shape == (5, 9)
    assert marginals.min() >= 0 and marginals.max() < 1.00001
    by_hand = [[sum(p for p, names in zip(row, sets.sets) if name in names) for name in CLASSES] for row in prob]
    assert np.allclose(marginals, by_hand, atol=1e-5)


def test_an_unseen_set_has_no_number():
    sets = LabelSets().fit(multi_hot(['AF', 'RBBB']))
    assert sets.encode(multi_hot(['AF;RBBB', 'AF'])).tolist() == [-1, 0]
    with pytest.raises(ValueError, match='no label set'): sets.decode([-1])


@given(label_rows)
def test_first_labels_of_texts_and_tuples(rows):
    first = first_labels(rows)
    assert (first == first_labels([';'.join(row) for row in rows])).all()
    assert [CLASSES[i] if i >= 0 else None for i in first] == [row[0] if row else None for row in rows]
