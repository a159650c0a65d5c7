"""The report: the numbers that a browser computes are Python's, on a desk and on a phone; small, quiet and safe whatever it is given."""
import json, re, shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.core import CLASSES, CohortError
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.metrics import exact_match, f_score
from ecg_nbdev.official import cpsc2018_matrix, cpsc2018_score
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.report import _ecg_svg, _origin, worst_mistakes, write_report
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.thresholds import Thresholds, apply_thresholds, fit_thresholds

pytestmark = pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore') # a few recordings lack a class

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run',
         '--disable-component-update', '--disable-sync']
AXE = Path(__file__).parent/'vendor/axe.min.js'


def made_up(n=400, seed=0, absent=()):
    "Answered predictions of `n` recordings that chose the thresholds and of `n` that are reported."
    rng = np.random.default_rng(seed)
    truth = np.eye(9, dtype=bool)[rng.choice(9, size=2*n, p=[.13, .18, .1, .04, .27, .09, .1, .06, .03])]
    truth[rng.uniform(size=2*n) < .1, 1] = True
    truth[truth[:, 1], 0] = False
    truth[:, [CLASSES.index(c) for c in absent]] = False
    prob = 1/(1+np.exp(-(rng.normal(-3, 1.5, truth.shape)+3.5*truth)))
    prob[::7] = np.round(prob[::7], 1) # ties, zeros and ones
    role = np.repeat(['valid', 'test'], n)
    preds = Predictions([f'A{i:05}' for i in range(2*n)], prob, truth, role, provenance={'seed': seed})
    operating = fit_thresholds(preds)
    return apply_thresholds(preds, operating), operating

def picture(name): return simulate(('AF',), seconds=10, fs=500, rng=np.random.default_rng(int(name[1:])))


def page_of(preds, operating, path, sources=None, n_boot=5, **options):
    "A report of the test recordings."
    return write_report(evaluate(preds, operating, sources=sources, n_boot=n_boot), path, **options)


# ---- without a browser

def test_6877_recordings_in_less_than_5_MB(tmp_path):
    preds, operating = made_up(6877)
    page = page_of(preds, operating, tmp_path/'report.html', dict.fromkeys(preds.ids, 'cpsc'), 2, load=picture)
    assert page.stat().st_size < 5e6

def test_names_from_outside_are_escaped(tmp_path):
    preds, operating = made_up(20)
    nasty = '</script><img src=x onerror=alert(1)>'
    preds = replace(preds, ids=[f'{nasty}{i}' for i in range(len(preds))])
    skipped = pd.DataFrame({'path': [nasty], 'reason': ['<b>']})
    page = page_of(preds, operating, tmp_path/'report.html', dict.fromkeys(preds.ids, nasty), 2, title=nasty, skipped=skipped,
                   load=lambda name: replace(picture('A1'), id=name), about={nasty: nasty}).read_text(encoding='utf-8')
    assert '<img' not in page and '<b>"' not in page
    assert page.count('</script>') == 2 # the data and the program
    data = json.loads(re.search(r'id=data>(.*?)</script>', page)[1])
    assert data['ids'] == evaluate(preds, operating).part.ids.tolist()

def test_nothing_is_fetched(tmp_path):
    preds, operating = made_up(20)
    page = page_of(preds, operating, tmp_path/'report.html', load=picture, n_mistakes=1).read_text(encoding='utf-8')
    text = re.sub(r'<script>.*', '', page, flags=re.S)
    assert not re.findall(r'(?:src|href)\s*=\s*["\']?(?!#|data:)[^\s>"\']{2,}', text)
    assert "default-src 'none'" in page

def test_the_same_input_gives_the_same_page(tmp_path):
    preds, operating = made_up(30)
    pages = [page_of(preds, operating, tmp_path/f'{i}.html', load=picture, n_mistakes=2).read_bytes() for i in range(2)]
    assert pages[0] == pages[1]

def test_the_page_computes_nothing_again(tmp_path):
    "What the report shows is read from the evaluation: with its scores changed, the page changes."
    preds, operating = made_up(30)
    evaluation = evaluate(preds, operating, n_boot=5)
    changed = replace(evaluation, scores={**evaluation.scores, 'macro_auroc': .12345})
    before, after = (write_report(e, tmp_path/'report.html').read_text(encoding='utf-8') for e in (evaluation, changed))
    assert after.count('0.123') > before.count('0.123')

def test_the_worst_mistake_is_the_surest():
    prob = np.full((3, 9), .01)
    truth = np.zeros((3, 9), bool)
    truth[:, 1] = True
    prob[0, 1], prob[1, [1, 2]], prob[2, [1, 4]] = .9, (.9, .7), (.9, .99) # right; I-AVB false; RBBB false, more surely
    worst = worst_mistakes(evaluate(Predictions(['a', 'b', 'c'], prob, truth, 'test'), Thresholds([.5]*9)))
    assert worst.record.tolist() == ['c', 'b'] and worst['class'].tolist() == ['RBBB', 'I-AVB'] and set(worst.mistake) == {'false'}

def test_unknown_labels_are_marked_and_never_mistakes(tmp_path):
    preds, operating = made_up(40)
    known = np.random.default_rng(4).uniform(size=preds.truth.shape) > .3
    some = replace(preds, truth=preds.truth & known, known=known, first=None)
    evaluation = evaluate(some, operating, sources=dict.fromkeys(preds.ids, 'cpsc2018'), n_boot=5)
    part, number = evaluation.part, {i: n for n, i in enumerate(evaluation.part.ids)}
    for r in worst_mistakes(evaluation, 40).itertuples():
        i, k = number[r.record], CLASSES.index(r[4])
        assert part.known[i, k] and part.truth[i, k] != part.answer[i, k]
        assert r.labelled.count('?') == (~part.known[i]).sum()
    page = write_report(evaluation, tmp_path/'report.html').read_text(encoding='utf-8')
    assert f'{(~part.known).sum():,} labels are unknown' in page
    assert 'within data sets' in page and 'if calibrated' in page
    none = evaluation.none_of_the_classes['recordings']
    assert ('None of the classes' in page) == (none > 0)

def test_recordings_of_none_of_the_classes_have_a_row(tmp_path):
    preds, operating = made_up(40)
    some = replace(preds, truth=preds.truth & (np.arange(len(preds)) % 4 > 0)[:, None], first=None)
    page = page_of(some, operating, tmp_path/'report.html').read_text(encoding='utf-8')
    assert 'None of the classes' in page and 'answered, not Normal' in page

def test_no_folder_is_told(tmp_path):
    preds, operating = made_up(40)
    skipped = pd.DataFrame({'path': ['/home/ann/ecg/A1.hea'], 'reason': ['/home/ann/ecg/A1.mat is missing']})
    page = page_of(preds, operating, tmp_path/'report.html', title='/home/ann/ecg, scored', skipped=skipped,
                   about={'data': '/home/ann/ecg'}).read_text(encoding='utf-8')
    assert '/home' not in page and 'A1.mat is missing' in page

def test_groups_by_sex_and_age_and_small_ones_without_scores(tmp_path):
    preds, operating = made_up(200)
    patients = pd.DataFrame({'age': np.where(np.arange(400) < 220, 30., 70.), 'sex': 'M'}, index=preds.ids)
    page = write_report(evaluate(preds, operating, n_boot=5, patients=patients), tmp_path/'report.html').read_text(encoding='utf-8')
    assert all(name in page for name in ('>men<', '>65 and older<', '>too few<')) and page.count('>too few<') == 1

def test_long_facts_are_counted():
    facts = _origin({'seed': 0}, {'seen': list(range(500)), 'per_class': [{'a': 1.0}]*90}).set_index('what').value
    assert facts['seen'] == '500 entries' and facts['per class'] == '90 entries' and facts['seed'] == '0'
    both = _origin({'seed': 0}, {'seed': 7}).query('what == "seed"')
    assert both[['of', 'value']].to_numpy().tolist() == [['model', '7'], ['predictions', '0']] # neither hides the other

def test_a_picture_follows_the_light():
    svg = _ecg_svg(picture('A1'))
    assert 'var(--ecg-page)' in svg and 'var(--ecg-ink)' in svg and 'font-family' not in svg.split('<text')[0]


# ---- in a browser

@pytest.fixture(scope='module')
def browser():
    if not CHROMIUM: pytest.skip('no Chromium on this machine: `apt-get install chromium`')
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: `make setup`')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()

@pytest.fixture
def view(browser):
    "Open a page; when the test is over, nothing may have gone wrong in it."
    wrong, contexts = [], []
    def open_page(path, width=1360, height=900, scheme='light'):
        context = browser.new_context(viewport={'width': width, 'height': height}, color_scheme=scheme,
                                      permissions=['clipboard-read', 'clipboard-write'])
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        local = ('file:', 'data:', 'blob:')
        page.on('request', lambda r: None if r.url.startswith(local) else wrong.append(f'asks {r.url}'))
        page.goto(Path(path).as_uri())
        return page
    yield open_page
    for context in contexts: context.close()
    assert wrong == []

def shown(page, root):
    "What a part of the page shows: the name of each number → its value at full precision, NaN for a dash."
    read = 'nodes => nodes.map(n => [n.dataset.field, n.dataset.value, n.textContent])'
    cells = page.eval_on_selector_all(f'{root} [data-field]', read)
    for _, value, text in cells: assert text == '–' if value == 'NaN' else abs(float(value)-float(text.replace(',', ''))) <= .00051
    return {name: float(value) for name, value, _ in cells}

def numbers(page, selector, shape=None):
    values = np.array(page.eval_on_selector_all(selector, 'nodes => nodes.map(n => +n.dataset.value)'))
    return values.reshape(shape) if shape else values

def agrees_by_class(page, evaluation):
    "The counts and scores of each class, in its panel and in the table."
    part = evaluation.part
    cells = part.truth & part.answer, ~part.truth & part.answer, part.truth & ~part.answer
    hit, false, missed = ((cell & part.known).sum(0) for cell in cells)
    for k, (_, r) in enumerate(evaluation.per_class.iterrows()):
        want = {'tp': hit[k], 'fp': false[k], 'fn': missed[k], 'f1': r.f1, 'sensitivity': r.recall, 'ppv': r.precision,
                'specificity': r.specificity}
        for root in (f'#class-{k}', f'#classes tr[data-k="{k}"]'):
            got = shown(page, root)
            assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-12, nan_ok=True)
    intervals = evaluation.class_intervals
    for name in ('sensitivity', 'specificity', 'ppv'):
        want = intervals[[f'{name}_low', f'{name}_high']].to_numpy()
        read = 'nodes => nodes.map(n => JSON.parse(n.dataset.value).map(v => v === null ? NaN : v))'
        for root in ('.point', '#classes'):
            assert np.allclose(page.eval_on_selector_all(f'{root} [data-range={name}]', read), want, equal_nan=True)
    for kind in ('macro', 'micro'):
        want = evaluation.table.loc[f'{kind} average', ['recall', 'specificity', 'precision', 'f1']].to_numpy(float)
        got = shown(page, f'#classes tr.{kind}')
        assert [got[name] for name in ('sensitivity', 'specificity', 'ppv', 'f1')] == pytest.approx(want, abs=1e-12)

def agrees(page, preds, operating):
    "Every number in the page against Python's."
    evaluation = evaluate(replace(preds, answer=None) if operating else preds, operating)
    part = evaluation.part
    agrees_by_class(page, evaluation)
    pair, known = (part.truth, part.answer), {'known': part.known}
    totals = {'macro_f1': f_score(*pair, **known), 'micro_f1': f_score(*pair, 'micro', **known),
              'exact_match': exact_match(*pair, **known), 'cpsc2018_f1': evaluation['cpsc2018_f1']}
    for name, value in totals.items(): assert numbers(page, f'[data-total={name}]') == pytest.approx([value], abs=1e-12, nan_ok=True)
    matrix = cpsc2018_matrix(part.truth, part.first, evaluation.single, **known)
    assert (numbers(page, '#official tbody td', matrix.shape) == matrix).all()
    for name, value in cpsc2018_score(matrix).items():
        if name.startswith('F'): assert numbers(page, f'[data-group={name}]') == pytest.approx([value], abs=1e-12, nan_ok=True)
    for name, Y in (('carried', part.truth), ('answered', part.answer)):
        assert (numbers(page, f'#{name} tbody td', matrix.shape) == Y.T.astype(int)@Y.astype(int)).all()
    assert (numbers(page, '[data-labels]')[:4] == np.bincount(part.answer.sum(1), minlength=4)[:4]).all()

@pytest.fixture(scope='module')
def report(tmp_path_factory):
    preds, operating = made_up()
    skipped = pd.DataFrame({'path': ['a/b/c.hea'], 'reason': ['the signal is missing: copy it again']})
    sources = {i: 'cpsc' if n % 3 else 'georgia' for n, i in enumerate(preds.ids)}
    path = page_of(preds, operating, tmp_path_factory.mktemp('report')/'report.html', sources, 20, title='Made-up predictions',
                   skipped=skipped, load=picture, n_mistakes=2, about={'arch': 'crnn', 'data': 'made up'})
    return path, preds, operating

@pytest.mark.browser
def test_sliders_give_the_numbers_of_python(view, report):
    path, preds, operating = report
    page = view(path)
    agrees(page, preds, operating)
    before = numbers(page, '[data-total=macro_f1]')
    slider = page.locator('#class-1 input[type=range]')
    slider.focus()
    for _ in range(3): page.keyboard.press('ArrowRight')
    assert page.evaluate('now[1]') > operating.values[1]
    agrees(page, preds, replace(operating, values=page.evaluate('now')))
    for k, key in ((4, 'Home'), (8, 'End'), (1, 'PageUp')):
        page.locator(f'#class-{k} input[type=range]').focus()
        page.keyboard.press(key)
    agrees(page, preds, replace(operating, values=page.evaluate('now')))
    assert numbers(page, '[data-total=macro_f1]') != before and page.locator('[data-gap=macro_f1]').text_content().startswith('−')
    page.locator('#class-3 .cut').fill('0.25')
    page.keyboard.press('Enter')
    assert page.evaluate('now[3]') == .25
    agrees(page, preds, replace(operating, values=page.evaluate('now')))
    page.click('#copy')
    page.get_by_text('Copied').wait_for()
    copied = Thresholds.from_dict(json.loads(page.evaluate('navigator.clipboard.readText()')))
    assert copied.values.tolist() == page.evaluate('now')
    with pytest.raises(CohortError, match='have chosen'): apply_thresholds(preds, copied)
    page.click('#reset')
    agrees(page, preds, operating)
    assert page.locator('#reset').is_disabled()

@pytest.mark.browser
def test_many_recordings_are_all_counted(view, tmp_path):
    "Of more recordings than are drawn, every number counts all; the curves are theirs nearly; the page stays small."
    preds, operating = made_up(12_000)
    path = page_of(preds, operating, tmp_path/'many.html', n_boot=2)
    assert path.stat().st_size < 1.7e6 # of which 0.5 MB are marks of validation recordings
    page = view(path)
    assert page.evaluate('many && shown.every(s => s.rows.length < 9000)') and 'curves are drawn from' in page.content()
    agrees(page, preds, operating)
    for k in (0, 8):
        x, got = page.evaluate('k => (logit(now[k])-drawn[k].low)/(drawn[k].high-drawn[k].low)*280', k), shown(page, f'#class-{k}')
        for name, of in (('sens', 'sensitivity'), ('spec', 'specificity')):
            assert height(page, k, name, x) in (None, pytest.approx(got[of], abs=.03))
    page.locator('#class-3 .cut').fill('0.25')
    page.keyboard.press('Enter')
    at = replace(operating, values=np.array(page.evaluate('now')))
    part = apply_thresholds(replace(preds, answer=None), at).of('test')
    assert shown(page, '#class-3')['tp'] == pytest.approx((part.truth & part.answer)[:, 3].sum(), abs=3)
    assert page.evaluate('chosenOn()') == part.key.tolist()

def height(page, k, name, x):
    "The score that a curve over the threshold of class `k` shows at the place `x` of the drawing, 0 to 280."
    parts = re.findall(r'([ML])(-?[\d.]+) (-?[\d.]+)', page.locator(f'#class-{k} .plot .{name}').get_attribute('d'))
    points = [(float(a), float(b)) for _, a, b in parts]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if min(x0, x1) <= x <= max(x0, x1) and abs(x1-x0) > 1: return 1-(y0+y1)/2/150 if abs(y0-y1) < 1 else None

@pytest.mark.browser
def test_curve_and_numbers_agree(view, report):
    "At whatever threshold, whichever the others are: the curve follows the whole rule, in steps."
    path, preds, operating = report
    page, compared = view(path), 0
    page.locator('#class-0 .cut').fill('.02') # Normal rules others out
    page.keyboard.press('Enter')
    for k in (0, 1, 3):
        for x in np.linspace(20, 260, 13):
            value = page.evaluate('([k, x]) => { const d = drawn[k]; return expit(d.low+(d.high-d.low)*x/280) }', [k, x])
            page.locator(f'#class-{k} .cut').fill(f'{value:.12f}')
            page.keyboard.press('Enter')
            got = shown(page, f'#class-{k}')
            for name, of in (('sens', 'sensitivity'), ('spec', 'specificity'), ('ppv', 'ppv'), ('f1', 'f1')):
                y = height(page, k, name, x)
                if y is None: continue
                assert y == pytest.approx(got[of], abs=.006), (k, value, name)
                compared += 1
    assert compared > 60

@pytest.mark.browser
def test_what_an_answer_is_worth_elsewhere(view, report):
    path, preds, operating = report
    page = view(path)
    page.locator('#class-1 .share').fill('0.5') # per cent
    page.keyboard.press('Enter')
    got, r = shown(page, '#class-1'), evaluate(preds, operating).per_class.iloc[1]
    hit, false = .005*r.recall, .995*(1-r.specificity)
    assert numbers(page, '#class-1 [data-at=ppv]') == pytest.approx([hit/(hit+false)], abs=1e-12)
    assert got['ppv'] == pytest.approx(r.precision) # of these recordings, as before

@pytest.mark.browser
def test_a_click_opens_a_recording(view, report):
    page = view(report[0])
    page.locator('#class-1 summary').click()
    page.locator('#class-1 button.open').first.click()
    assert page.locator('#ecg .trace').count() > 20 and '25 mm/s' in page.locator('#ecg .facts').text_content()
    page.locator('#ecg button').click()
    assert not page.locator('#ecg').is_visible()

@pytest.mark.browser
def test_a_mouse_moves_the_slider_and_the_line_follows(view, report):
    path, preds, operating = report
    page = view(path)
    slider = page.locator('#class-4 input[type=range]')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.click(box['x']+box['width']*.8, box['y']+box['height']/2)
    line, thumb = page.locator('#class-4 .at').bounding_box(), box['x']+box['width']*.8
    assert abs(line['x']-thumb) < 6 # the marker in the chart stands over the thumb
    agrees(page, preds, replace(operating, values=page.evaluate('now')))

@pytest.mark.browser
@pytest.mark.parametrize('rules', [{}, {'alone': ()}, {'least': 0}, {'least': 2, 'most': 2},
                                   {'most': 9, 'least': 0, 'alone': ('LBBB', 'Normal')}], ids=str)
def test_decoding_is_that_of_python(view, tmp_path, rules):
    preds, operating = made_up(300, seed=3)
    operating = replace(operating, **rules)
    preds = apply_thresholds(preds, operating)
    evaluation = evaluate(preds, operating, n_boot=2)
    page, part = view(write_report(evaluation, tmp_path/'report.html')), evaluation.part
    rng = np.random.default_rng(5)
    for values in (*rng.uniform(size=(5, 9)), np.full(9, .5), np.zeros(9), np.ones(9), np.round(rng.uniform(size=9), 1)):
        got = np.array(page.evaluate('at => [...decode(at).answer]', values.tolist())).reshape(-1, 9)
        assert (got == replace(operating, values=values).decode(part.prob)).all()

@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1360, 800, 390])
def test_no_width_scrolls_sideways_and_all_can_be_read(view, report, width, scheme):
    page = view(report[0], width, 844, scheme)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    paper = 'rgb(255, 255, 255)' if scheme == 'light' else 'rgb(17, 21, 29)'
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') == paper
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_function("document.querySelector('.who').children.length > 0")
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    page.evaluate(f'() => {{ {AXE.read_text(encoding="utf-8")} }}') # the page's own policy forbids a script tag from elsewhere
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa'], preload: false, resultTypes: ['violations']})")
    assert [f"{v['id']}: {n['html'][:120]} {n['any'][:1]}" for v in found['violations'] for n in v['nodes']] == []

@pytest.mark.browser
def test_light_and_dark_are_switched(view, report):
    page = view(report[0])
    colors = ("getComputedStyle(document.querySelector('.mistake svg path')).fill"
              " + getComputedStyle(document.body).backgroundColor")
    def paper(): return page.evaluate(colors)
    before = paper()
    page.click('#theme')
    assert paper() != before
    page.emulate_media(media='print')
    assert paper() == before # ink on white paper, whatever the screen shows
    page.set_viewport_size({'width': 700, 'height': 1000}) # A4 with margins
    rightmost = "Math.max(...[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right))"
    assert page.evaluate(rightmost) <= 700
    assert page.pdf().startswith(b'%PDF')

@pytest.mark.browser
def test_the_recordings_behind_a_count_are_named(view, report):
    path, preds, operating = report
    page, part = view(path), evaluate(preds, operating).part
    page.locator('#class-1 summary').click()
    page.locator('#class-1 .who code').first.wait_for()
    wrong = part.ids[part.truth[:, 1] != part.answer[:, 1]]
    assert set(page.locator('#class-1 .who code').all_text_contents()) == set(wrong)

def cases():
    preds, operating = made_up(60)
    test = np.flatnonzero(preds.role == 'test')
    yield 'classes without positives', made_up(60, absent=('LBBB', 'STE', 'PVC'))
    yield 'a single recording', (preds.take(test[:1]), operating)
    yield 'no mistakes', (apply_thresholds(replace(preds, prob=preds.truth*.9+.05), operating), operating)
    yield 'all alike', (apply_thresholds(replace(preds, prob=np.full(preds.prob.shape, .3)), operating), operating)
    yield 'label sets, no thresholds', (replace(preds, answer=preds.prob >= np.sort(preds.prob, 1)[:, -1:]), None)
    sets = fit_decoder(preds)
    yield 'a decoder of sets', (apply_thresholds(preds, sets), sets)
    some = replace(preds, truth=preds.truth & (np.arange(len(preds)) % 4 > 0)[:, None], first=None)
    known = np.random.default_rng(4).uniform(size=preds.truth.shape) > .05
    yield 'some labels unknown', (replace(preds, truth=preds.truth & known, known=known, first=None), operating)
    yield 'a class of which nothing is known', (replace(
        preds, truth=preds.truth & (np.arange(9) != 4), known=np.tile(np.arange(9) != 4, (len(preds), 1)), first=None), operating)
    yield 'some without a class', (apply_thresholds(some, operating), operating)
    prob, truth = [[.9, .2], [.1, .7], [.4, .45], [.8, .9]], [[1, 0], [0, 1], [1, 0], [1, 1]]
    two = apply_thresholds(Predictions(list('abcd'), prob, truth, 'test', ('sick', 'well')), Thresholds([.5, .5], ('sick', 'well')))
    yield 'two other classes', (two, Thresholds([.5, .5], ('sick', 'well')))

@pytest.mark.browser
@pytest.mark.parametrize('case', list(cases()), ids=lambda c: c[0])
def test_odd_predictions(view, tmp_path, case):
    name, (preds, operating) = case
    page = view(page_of(preds, operating, tmp_path/'report.html', dict.fromkeys(preds.ids, 'one'),
                        load=lambda name: picture('A1'), n_mistakes=1), 390)
    if name != 'two other classes': agrees(page, preds, operating)
    assert page.locator('.point').count() == len(preds.classes)
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    moved = 3 if isinstance(operating, Thresholds) else 1 # number, slider and prevalence
    assert page.locator('input').count() == moved*len(preds.classes)
    assert 'NaN' not in unescape(page.locator('main').inner_text())
