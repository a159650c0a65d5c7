"Label rules: every code is known, the table's words hold for whole data sets, and what is unknown changes nothing."
import ast, csv, os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import CLASSES
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.labels import label_states, multi_hot, read_ptbxl
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.rules import label_rules
from ecg_nbdev.sim.findings import FINDINGS
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.thresholds import fit_thresholds

ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA is not set: the real recordings are not at hand')
RULES = label_rules()
codes = st.lists(st.sampled_from(sorted(RULES.says)), max_size=5)


@given(codes)
def test_labels_and_unknown_are_apart_and_normal_keeps_no_company(items):
    labels, unknown = RULES.decode(','.join(items))
    assert not set(labels) & set(unknown) and {*labels, *unknown} <= set(CLASSES)
    if 'Normal' in labels: assert len(labels) == 1
    if labels and labels != ('Normal',): assert 'Normal' not in unknown
    again = RULES.decode(','.join(items+items))
    assert again == (labels, unknown)


@given(codes, st.randoms())
def test_the_order_of_codes_orders_labels_and_nothing_else(items, random):
    other = random.sample(items, len(items))
    (one, unknown), (two, unknown_too) = RULES.decode(','.join(items)), RULES.decode(','.join(other))
    assert set(one) == set(two) and unknown == unknown_too


@given(codes, st.sampled_from(sorted(RULES.says)))
def test_a_doubtful_code_names_no_class(items, code):
    said, (labels, _) = RULES.decode(code)[0], RULES.decode(f'{code}?')
    assert not labels
    assert set(said) <= set(RULES.decode(f'{code}?')[1])


@given(codes)
def test_strict_differs_in_normal_only(items):
    (labels, unknown), (strict, strictly) = (label_rules(strict=s).decode(','.join(items)) for s in (False, True))
    assert labels == strict
    if not any(map(RULES.knows, items)): return
    allowed = all(RULES.says[item].get('Normal') == 'allowed' for item in items) # nobody said normal, nobody a finding
    assert set(unknown)-set(strictly) <= {'Normal'} and (allowed or 'Normal' not in strictly)


def test_spellings():
    for text, labels in {'164909002,733534002': ('LBBB',), '713427006;59118001': ('RBBB',),
                         '17338001, 427172004,63593006': ('PVC', 'PAC'), 'af , std': ('AF', 'STD')}.items():
        assert RULES.decode(text)[0] == labels
    assert RULES.decode('Unknown') == RULES.decode('') == ((), CLASSES)


def test_rules_of_classes_of_ones_own():
    own = label_rules({'AF': 164889003, 'Bradycardia': ['426177001', 'SB']})
    assert own.decode('426177001,164889003,sb') == (('Bradycardia', 'AF'), ())
    assert own.decode('270492004') == ((), ()) and own.decode('') == ((), ('AF', 'Bradycardia'))


@real
@pytest.mark.parametrize('name', ['scored', 'unscored'])
def test_every_code_of_the_challenge_has_a_rule(name):
    table = pd.read_csv(Path(ECG_DATA)/f'physionet2020-evaluation/dx_mapping_{name}.csv', dtype=str)
    missing = [code for code in table['SNOMED CT Code'] if not RULES.knows(code)]
    assert not missing


@real
def test_every_statement_of_ptbxl_has_a_rule():
    table = pd.read_csv(Path(ECG_DATA)/'ptbxl-own/scp_statements.csv', index_col=0)
    assert len(table) == 71 and all(RULES.knows(code.lower()) for code in table.index)


@real
@pytest.mark.parametrize('source', ['georgia', 'chapman-ningbo', 'ptbxl', 'cpsc-extra', 'ptb'])
def test_codes_of_every_source(source):
    "The classes but Normal are those of an independent table; a code that the rules add names more, never less."
    table = pd.read_csv(Path(ECG_DATA)/source/'records.csv', dtype=str, keep_default_na=False)
    for text, theirs in zip(table.dx, table.labels9):
        labels, unknown = RULES.decode(text)
        theirs = set(filter(None, theirs.split(';')))
        assert set(labels) >= theirs-{'Normal'}
        if 'Normal' in labels: assert theirs == {'Normal'}
        if theirs == {'Normal'} and not labels: assert 'Normal' in unknown or len(text.split(',')) > 1


@real
def test_ptbxl_as_a_whole():
    told = read_ptbxl(Path(ECG_DATA)/'ptbxl-own/ptbxl_database.csv')
    raw = pd.read_csv(Path(ECG_DATA)/'ptbxl-own/ptbxl_database.csv').scp_codes.map(ast.literal_eval)
    decoded = [RULES.decode(told[f'{i:05d}_hr']['dx']) for i in range(1, 21838)]
    nine = {'1AVB', 'LPR', 'CLBBB', 'CRBBB', 'AFIB', 'PAC', 'PVC', 'STD_', 'STE_'}
    normal = sum(c.get('NORM', 0) >= 80 and not any(k in nine and (v == 0 or v >= 50) for k, v in c.items()) for c in raw)
    assert sum('Normal' in labels for labels, _ in decoded) == normal == 8599
    assert all(len(unknown) < 9 for _, unknown in decoded)


@real
def test_ptbxl_reads_its_own_table():
    cohort = scan(Path(ECG_DATA)/'ptbxl-own', progress=False)
    table = cohort.table.set_index('id')
    raw = pd.read_csv(Path(ECG_DATA)/'ptbxl-own/ptbxl_database.csv', index_col='ecg_id')
    number = table.index.str.removeprefix('HR').str.removesuffix('_hr').astype(int)
    assert (table.patient == raw.patient_id[number].map('{:.0f}'.format).to_numpy()).all()
    assert (table.age == raw.age[number].to_numpy()).all() and set(table.sex) == {'M', 'F'}
    assert cohort.unread == len(raw)-len(table)


def test_what_the_rules_leave_open_for_a_code_the_simulator_leaves_open_as_well():
    for finding in (f for f in FINDINGS.values() if f.code):
        labels, unknown = RULES.decode(str(finding.code))
        assert not labels and set(unknown)-{'Normal'} <= set(finding.unknown), finding


@pytest.mark.parametrize('labels, unknown', [
    (('AF', 'RBBB'), ()), ((), ()), ((), CLASSES), (('AF',), ('RBBB', 'PVC')), ((), ('RBBB',)), ((), ('Normal',)),
    ((), ('Normal', 'STD')), (('Normal',), ()), (('Normal',), ('RBBB',))])
def test_three_states_survive_a_file(tmp_path, labels, unknown):
    record = replace(simulate(seconds=2, rng=0, id='A1'), labels=labels, unknown=unknown)
    again = read_record(write_record(record, tmp_path))
    assert again.labels == labels and set(again.unknown) == set(unknown)
    row = scan(tmp_path, progress=False).table.iloc[0]
    assert (row.labels, row.unknown) == (';'.join(again.labels), ';'.join(again.unknown))


def _predictions(rng, known, prob):
    truth = np.eye(9, dtype=bool)[np.arange(len(prob)) % 9] & known
    return Predictions(np.arange(len(prob)), prob, truth, 'valid', known=known)

@pytest.mark.parametrize('choose', [
    lambda p: fit_thresholds(p).values, lambda p: fit_thresholds(p, 'youden', together=False).values,
    lambda p: fit_calibration(p, 'platt').apply(np.full((1, 9), .3)), lambda p: fit_decoder(p).prevalence])
def test_what_is_unknown_chooses_nothing(choose):
    rng = np.random.default_rng(0)
    known, prob = rng.random((180, 9)) > .1, rng.random((180, 9))
    changed = np.where(known, prob, rng.random((180, 9)))
    assert np.array_equal(choose(_predictions(rng, known, prob)), choose(_predictions(rng, known, changed)))
