"`ECGClassifier` as scikit-learn sees it: the estimator checks that make sense for recordings, parameters, ragged input."
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict
from sklearn.utils import estimator_checks as checks

from ecg_nbdev.classifier import ECGClassifier
from ecg_nbdev.core import CohortError, Record
from ecg_nbdev.sim.synth import simulate_cohort

# Checks of an estimator's constructor and parameters need no data and are scikit-learn's own. All others make rows of a few
# numbers, (n, features), sparse tables, text or single rows: none is a recording of 12 leads with two parts of labelled
# recordings to train and choose on. What these ask that can be asked of recordings is asked below.
OF_PARAMETERS = (
    checks.check_no_attributes_set_in_init, checks.check_parameters_default_constructible, checks.check_estimator_cloneable,
    checks.check_estimator_repr, checks.check_get_params_invariance, checks.check_set_params, checks.check_mixin_order,
    checks.check_do_not_raise_errors_in_init_or_set_params, checks.check_valid_tag_types, checks.check_estimator_tags_renamed)

@pytest.mark.parametrize('check', OF_PARAMETERS, ids=lambda c: c.__name__)
def test_estimator_check(check): check('ECGClassifier', ECGClassifier())

@pytest.fixture(scope='module')
def records(): return list(simulate_cohort(40, seed=0))

@pytest.fixture(scope='module')
def one(records): return np.array(['block' if 'RBBB' in r.labels else 'other' for r in records])

@pytest.fixture(scope='module')
def small(): return ECGClassifier(seconds=5, epochs=1, valid=.4)

@pytest.fixture(scope='module')
def fitted(small, records, one): return clone(small).fit(records, one)

def test_unfitted_it_says_so(small, records):
    with pytest.raises(NotFittedError): clone(small).predict(records)

def test_fitting_leaves_parameters_and_data_alone(small, records, one):
    params, signal = small.get_params(), records[0].signal.copy()
    clone(small).fit(records, one)
    assert small.get_params() == params and np.array_equal(records[0].signal, signal, equal_nan=True)

def test_the_same_seed_gives_the_same_probabilities(fitted, small, records, one):
    again = clone(small).fit(records, one)
    assert np.array_equal(again.predict_proba(records), fitted.predict_proba(records))

def test_order_and_company_of_rows_do_not_matter(fitted, records):
    prob = fitted.predict_proba(records)
    assert np.allclose(fitted.predict_proba(records[::-1])[::-1], prob, atol=1e-6)
    assert np.allclose(fitted.predict_proba(records[:1]), prob[:1], atol=1e-6)

def test_answers_are_the_likeliest_class(fitted, records, one):
    prob = fitted.predict_proba(records)
    assert np.allclose(prob.sum(1), 1) and set(fitted.classes_) == {'block', 'other'}
    assert (fitted.predict(records) == fitted.classes_[prob.argmax(1)]).all()
    assert fitted.score(records, one) == np.mean(fitted.predict(records) == one)

def test_records_of_any_length_and_rate(fitted, records):
    long = Record(np.tile(records[0].signal, 3), records[0].fs, 'long')
    empty = Record(np.full((12, 5000), np.nan), 500, 'empty')
    prob = fitted.predict_proba([long, empty, records[1]])
    assert np.isfinite(prob[[0, 2]]).all() and np.isnan(prob[1]).all()

def test_arrays_are_as_good_as_records(fitted, records):
    cut = [Record(r.signal[:, :2500], 500, r.id) for r in records[:4] if r.n >= 2500 and r.fs == 500]
    assert cut and np.allclose(fitted.predict_proba(np.stack([r.signal for r in cut])), fitted.predict_proba(cut), atol=1e-6)

def test_cross_validated_labels_of_several_classes(small, records):
    truth = np.array([['RBBB' in r.labels, 'AF' in r.labels, 'Normal' in r.labels] for r in records]).astype(int)
    answer = cross_val_predict(clone(small).set_params(classes=('RBBB', 'AF', 'Normal')), records, truth, cv=2)
    assert answer.shape == truth.shape and set(np.unique(answer)) <= {0, 1}

@pytest.mark.parametrize('X, y, said', [
    (np.zeros((4, 3, 900)), [0, 1, 0, 1], 'give Records'), (np.zeros((4, 20)), [0, 1, 0, 1], 'give Records'),
    ([], [], 'give Records'), (['a', 'b'], [0, 1], 'neither Records nor an array')])
def test_what_is_no_recording_is_refused_in_one_line(small, X, y, said):
    with pytest.raises(CohortError, match=said): clone(small).fit(X, y)
