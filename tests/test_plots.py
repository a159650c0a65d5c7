"""ECG paper and charts: true geometry, nothing lost by thinning, absent leads, every layout and length, records that
show themselves, charts that show the numbers they are given."""
import base64, os, subprocess, sys, xml.dom.minidom
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib
matplotlib.use('agg')
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from matplotlib import pyplot as plt

from ecg_nbdev.charts import (
    plot_co_occurrence, plot_confusion, plot_curves, plot_history, plot_label_sets, plot_lengths, plot_reliability,
    reliability_bins, reliability_error, reliability_table)
from ecg_nbdev.core import CLASSES, LEADS, Record
from ecg_nbdev.figures import CLASS_COLORS, COLORS, min_max, palette_png, save_figure, style
from ecg_nbdev.layouts import LAYOUTS, fold_rows, lay_out
from ecg_nbdev.plots import PAPERS, plot_batch, plot_ecg

ECG_DATA = os.environ.get('ECG_DATA')


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

def signal(seconds=10, fs=500, seed=0):
    return np.random.default_rng(seed).normal(0, .3, (12, round(seconds*fs))).astype(np.float32)

def texts(ax): return [t.get_text() for t in ax.texts]

def traces(ax): return [line for line in ax.lines if (line.get_gid() or '').startswith('lead-')]


# ---- geometry

@pytest.mark.parametrize('layout', [*LAYOUTS, 'V1'])
def test_a_millimetre_is_a_millimetre(layout):
    ax = plot_ecg(signal(), 500, layout)
    pixels = np.diff(ax.transData.transform([(0, 0), (25, 10)]), axis=0)[0]
    assert np.allclose(pixels/ax.figure.dpi*25.4, [25, 10], rtol=1e-4)

@pytest.mark.parametrize(('mm_s', 'mm_mV', 'scale'), [(25, 10, 1), (50, 10, 1), (25, 20, .5), (12.5, 5, .7)])
def test_speed_and_gain(mm_s, mm_mV, scale):
    x = np.zeros((12, 5000), np.float32)
    x[1, 1000] = 1 # one millivolt at second 2
    ax = plot_ecg(x, 500, 'II', mm_s=mm_s, mm_mV=mm_mV, scale=scale)
    line, = traces(ax)
    top = np.argmax(line.get_ydata())
    assert line.get_ydata()[top]-line.get_ydata()[0] == pytest.approx(mm_mV)
    assert line.get_xdata()[top]-line.get_xdata()[0] == pytest.approx(2*mm_s)
    x, y = next(line for line in ax.lines if line.get_gid() == 'pulses').get_data()
    assert np.ptp(y[:6]) == pytest.approx(mm_mV) and np.diff(x[:6]).max() == pytest.approx(.2*mm_s)

def test_leads_side_by_side_follow_each_other_in_time():
    ramp = np.tile(np.linspace(-1, 1, 5000, dtype=np.float32), (12, 1))
    lines = traces(plot_ecg(ramp, 500, '3x4'))[:4]
    heights = np.concatenate([line.get_ydata() for line in lines])
    assert np.all(np.diff(heights) >= -1e-4)

@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(LAYOUTS)), st.floats(.5, 70), st.floats(2, 12))
def test_strips_show_every_second_once(layout, seconds, row):
    rows, strips = LAYOUTS[layout]
    placed = [p for r in fold_rows(layout, 0, seconds, row) for p in r]
    for lead in strips or LEADS:
        last = [p for p in placed if p[0] == lead and (not strips or p[3] == row)]
        starts = [p[1] for p in last]
        assert starts == sorted(starts)
        if strips: assert starts[-1]+row >= seconds-1e-5 and np.allclose(np.diff(starts), row)
    assert {p[0] for p in placed} == set(LEADS)

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(list(LAYOUTS)), st.floats(.02, 3))
def test_rows_never_overlap(seed, layout, spread):
    pieces, _, height = lay_out(signal(4, 100, seed)*spread, 100, fold_rows(layout, 0, 4, 4), 4)
    rows = sorted({(p.base, p.low, p.high) for p in pieces})
    assert all(base+high < above-low for (base, _, high), (above, low, _) in zip(rows, rows[1:]))
    assert rows[0][0]-rows[0][1] >= 0 and rows[-1][0]+rows[-1][2] <= height


# ---- what is drawn

@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 300), st.floats(0, 1), st.integers(0, 1000))
def test_thinning_keeps_extremes_ends_and_gaps(n, bins, share, seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    start = int(rng.integers(n))
    y[start:start+int(share*n)] = np.nan
    kept = min_max(y, bins)
    assert np.all(np.diff(kept) > 0) and kept[0] == 0 and kept[-1] == n-1
    if np.isfinite(y).any(): assert (np.nanmin(y[kept]), np.nanmax(y[kept])) == (np.nanmin(y), np.nanmax(y))
    size = n//bins
    if size >= 4: assert len(kept) <= 2*(n//size)+size+2
    else: assert len(kept) == n

@pytest.mark.parametrize('seconds', [.3, 2.5, 9, 10, 10.001, 60])
@pytest.mark.parametrize('layout', ['3x4+1', '12x1'])
def test_any_length(seconds, layout):
    ax = plot_ecg(signal(seconds, 250), 250, layout, scale=.3)
    assert set(LEADS) <= {t.split('  ')[0] for t in texts(ax)}

def test_absent_leads_say_so():
    x = signal()
    x[[2, 9]] = np.nan
    ax = plot_ecg(x, 500, '12x1')
    assert [t for t in texts(ax) if 'absent' in t] == ['III absent', 'V4 absent']

def test_a_record_without_any_sample_is_drawn():
    ax = plot_ecg(np.full((12, 1000), np.nan), 500)
    assert sum('absent' in t for t in texts(ax)) == 13

def test_a_gap_stays_a_gap():
    x = signal()
    x[:, 2000:2500] = np.nan
    line = traces(plot_ecg(x, 500, 'II'))[0]
    assert np.isnan(line.get_ydata()).sum() > 0

def test_start_and_stop():
    x = np.zeros((12, 5000), np.float32)
    x[1, 1000] = 1
    line, = traces(plot_ecg(x, 500, 'II', start=1, stop=4))
    assert line.get_xdata()[np.argmax(line.get_ydata())]-line.get_xdata()[0] == pytest.approx(25)
    assert np.ptp(line.get_xdata()) == pytest.approx(75, abs=.1)

def test_weights_shade_where_they_are():
    w = np.zeros((12, 5000))
    w[1, 1000:1100], w[1, 3000:3100] = 1, -.5
    ax = plot_ecg(signal(), 500, 'II', weight=w)
    image, = ax.images
    alpha, rgb = image.get_array()[0, :, 3], image.get_array()[0, :, :3]
    left, right = image.get_extent()[:2]
    at = (left+(np.flatnonzero(alpha > .5)+.5)*(right-left)/len(alpha)-10)/25
    assert at.min() == pytest.approx(2, abs=.03) and at.max() == pytest.approx(2.2, abs=.03)
    negative = np.flatnonzero((alpha > .3) & (alpha < .4))
    assert len(negative) and np.allclose(rgb[negative], matplotlib.colors.to_rgb(COLORS['blue']))

def test_weights_of_nothing_and_nan_weights_draw_nothing():
    assert not plot_ecg(signal(), 500, weight=np.zeros((12, 5000))).images
    assert not plot_ecg(signal(), 500, weight=np.full((12, 5000), np.nan)).images

def test_spans_are_marked_on_every_lead_that_shows_them():
    ax = plot_ecg(signal(), 500, '12x1', spans=[(2, 3, 'PVC'), (9.5, 20)])
    assert len(ax.patches) == 24 and texts(ax).count('PVC') == 1
    assert {round(p.get_width(), 3) for p in ax.patches} == {25, 12.5}

@pytest.mark.parametrize('paper', PAPERS)
def test_papers(paper):
    ax = plot_ecg(signal(), 500, paper=paper, scale=.5)
    assert matplotlib.colors.to_hex(ax.figure.get_facecolor()) == PAPERS[paper][0]

def test_into_given_axes():
    fig, axes = plt.subplots(1, 2)
    assert plot_ecg(signal(), 500, ax=axes[1]) is axes[1]
    assert len(plt.get_fignums()) == 1

def test_title_of_a_record_and_of_none():
    record = Record(signal(), 500, 'A0001', labels=('AF', 'RBBB'), age=74, sex='M')
    assert 'A0001 · 74 y · M · AF, RBBB · 10 s at 500 Hz' in texts(plot_ecg(record))
    assert 'hello' in texts(plot_ecg(record, title='hello'))
    assert plot_ecg(signal(), 500).texts[-2].get_text() == ''

@pytest.mark.parametrize(('seconds', 'layout_rows'), [(2.5, 3), (5, 6), (10, 12)])
def test_batch_chooses_rows_by_length(seconds, layout_rows):
    fig = plot_batch([signal(seconds, 100, s) for s in range(5)], titles=list('abcde'), fs=100, colors=['red']*5)
    assert len(fig.axes) == 5
    assert [next(t for t in ax.texts if t.get_gid() == 'title').get_text() for ax in fig.axes] == list('abcde')
    pulses = next(line for line in fig.axes[0].lines if line.get_gid() == 'pulses')
    assert len(pulses.get_xdata()) == 7*layout_rows

def test_a_batch_of_one_and_of_many():
    assert len(plot_batch(signal(2.5)[None]).axes) == 1
    assert len(plot_batch(np.stack([signal(2.5)]*20), max_n=4).axes) == 4


# ---- records that show themselves

class Tags(HTMLParser):
    "The tags and the text of a piece of HTML."
    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ''
        self.feed(html)
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_data(self, data): self.text += data

def test_a_record_draws_itself():
    record = Record(signal(), 500, 'A0001')
    assert len(traces(record.plot(layout='12x1'))) == len(traces(plot_ecg(record, layout='12x1'))) == 12
    fig, ax = plt.subplots()
    assert record.plot(ax=ax) is ax

@pytest.mark.parametrize('name', ['A0001', '<script>alert(1)</script>', 'a" onerror="b', "A&B'"])
def test_the_display_of_a_record_is_escaped(name):
    shown = Tags(Record(signal(), 500, name, labels=(name,), sex='<F>')._repr_html_())
    assert [tag for tag, _ in shown.tags] == ['p', 'img']
    assert set(shown.tags[1][1]) == {'alt', 'src'} and name in shown.tags[1][1]['alt']
    assert f'{name} · <F> · {name} · 10 s at 500 Hz' == shown.text

@pytest.mark.parametrize('seconds', [.004, 1, 10, 120])
def test_the_display_of_a_record_is_light_and_leaves_no_figure(seconds):
    from PIL import Image
    shown = Record(signal(seconds), 500, 'A0001')._repr_html_()
    kind, data = Tags(shown).tags[1][1]['src'].split(',')
    assert kind == 'data:image/png;base64' and len(shown) < 20_000 and not plt.get_fignums()
    assert Image.open(BytesIO(base64.b64decode(data))).width < 400

def test_the_display_of_a_record_without_leads_or_samples():
    nothing = Record(np.full((12, 5000), np.nan), 500, 'A0001')
    assert '<img' in nothing._repr_html_()
    assert '<img' not in replace(nothing, signal=nothing.signal[:, :0])._repr_html_()

def test_records_that_were_read_can_be_drawn_and_core_alone_stays_plain():
    code = ('import sys\nfrom ecg_nbdev.core import Record\nplain = hasattr(Record, "plot")\nimport ecg_nbdev.records\n'
            'print(plain, hasattr(Record, "plot"), hasattr(Record, "_repr_html_"), "matplotlib" in sys.modules)')
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ['False', 'True', 'True', 'False']


# ---- files

@pytest.mark.parametrize('ending', ['png', 'svg', 'pdf'])
def test_figures_are_saved_whole(tmp_path, ending):
    file = save_figure(plot_ecg(signal(60), 500), tmp_path/f'ecg.{ending}')
    assert file.stat().st_size < 1_500_000 and [f.name for f in tmp_path.iterdir()] == [file.name]
    if ending == 'svg':
        xml.dom.minidom.parse(str(file))
        assert '>V6</text>' in file.read_text()

def test_palette_png_is_small_and_true():
    from PIL import Image
    ax = plot_ecg(signal(), 500, scale=.5)
    data, full = palette_png(ax, colors=32), BytesIO()
    ax.figure.savefig(full, format='png', dpi=100, bbox_inches='tight', pad_inches=.04)
    assert len(data) < .5*len(full.getvalue())
    a, b = (np.asarray(Image.open(f).convert('RGB'), dtype=float) for f in (BytesIO(data), full))
    assert a.shape == b.shape and np.abs(a-b).mean() < 6

def test_style_leaves_nothing_behind():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), style(dark=True): 1/0
    plot_ecg(signal(), 500)
    assert dict(matplotlib.rcParams) == before


# ---- charts

def luminance(color):
    c = np.array(matplotlib.colors.to_rgb(color))
    return np.where(c <= .03928, c/12.92, ((c+.055)/1.055)**2.4) @ [.2126, .7152, .0722]

def test_colours_show_on_white_and_differ():
    assert len(set(CLASS_COLORS.values())) == len(CLASSES)
    assert all(1.05/(luminance(c)+.05) > 1.9 for c in CLASS_COLORS.values())

def test_co_occurrence_shows_lower_half():
    m = np.array([[10, 2, 0], [2, 20, 5], [0, 5, 30]])
    ax = plot_co_occurrence(m, ['a', 'b', 'c'])
    assert sorted(int(t) for t in texts(ax)) == [2, 5, 10, 20, 30]
    lift = plot_co_occurrence(m/10, ['a', 'b', 'c'], fmt='.1f', center=1.)
    assert lift.collections[0].norm.vmin*lift.collections[0].norm.vmax == pytest.approx(1)

def test_label_sets_count():
    fig = plot_label_sets([('AF',), ('AF', 'RBBB'), ('RBBB', 'AF'), ('AF', 'AF')], top=1)
    bars = fig.axes[1]
    assert '2 of them in 4 recordings, the first 1 shown' in bars.get_title(loc='left')
    assert [p.get_height() for p in bars.patches] == [2]

def test_lengths_share():
    ax = plot_lengths([5, 10, 20, 30], window=10)
    assert '50%' in ax.get_legend().get_texts()[0].get_text()

def test_history_marks_the_epoch_that_is_kept():
    h = pd.DataFrame({
        'epoch': [0, 1, 2], 'train_loss': [3., 2, 1], 'valid_loss': [3., 1, 2], 'f1': [.1, .2, .3], 'time': ['0']*3})
    assert 'epoch 1 is best' in plot_history(h).axes[0].get_title(loc='left')
    assert 'epoch 2 is best' in plot_history(h, monitor='f1').axes[0].get_title(loc='left')
    assert len(plot_history(h[['epoch', 'train_loss', 'valid_loss']]).axes) == 1

@pytest.mark.parametrize('kind', ['roc', 'pr'])
def test_curves_leave_out_classes_without_both_answers(kind):
    rng = np.random.default_rng(0)
    truth = np.zeros((200, 3), bool)
    truth[:, 0], truth[:, 2] = rng.random(200) < .3, True
    ax = plot_curves(truth, rng.random((200, 3)), kind, [.5]*3, ['a', 'b', 'c'])
    assert len(ax.lines) == 2 and ax.get_legend().get_texts()[0].get_text().startswith('a ')

def test_the_operating_point_lies_on_the_curve():
    rng = np.random.default_rng(1)
    truth = rng.random((500, 1)) < .4
    prob = np.round(np.clip(truth*.3+rng.random((500, 1))*.7, 0, 1), 2)
    for kind in ('roc', 'pr'):
        curve, dot = plot_curves(truth, prob, kind, [.5], ['a']).lines
        distance = np.hypot(curve.get_xdata()-dot.get_xdata()[0], curve.get_ydata()-dot.get_ydata()[0]).min()
        assert distance < 1e-9

def test_reliability_of_perfect_and_of_bad_answers():
    p = np.repeat([.05, .45, .95], 1000)
    good = np.concatenate([np.arange(1000) < 1000*q for q in (.05, .45, .95)])
    def error(ax): return float(ax.get_title(loc='left').split()[-1][:-1])
    assert error(plot_reliability(good, p)) < .001
    assert error(plot_reliability(~good, p)) > .5
    assert error(plot_reliability([True], [1.])) == 0

@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 20), st.integers(0, 1000))
def test_the_table_behind_a_reliability_diagram(n, bins, seed):
    rng = np.random.default_rng(seed)
    prob = np.r_[rng.choice([0., .3, .5, 1.], n), rng.random(n)]
    truth = rng.random(2*n) < prob
    table = reliability_table(truth, prob, bins)
    assert table.n.sum() == 2*n and table.index.is_monotonic_increasing and (table.n > 0).all()
    assert (0 <= table.low).all() and (table.low <= table.seen).all()
    assert (table.seen <= table.high).all() and (table.high <= 1).all()
    hits, z = table.seen, 1.959964 # Wilson 1927, by hand
    centre = (hits+z*z/2/table.n)/(1+z*z/table.n)
    half = z*np.sqrt(hits*(1-hits)/table.n+z*z/4/table.n**2)/(1+z*z/table.n)
    assert np.allclose(table.low, (centre-half).clip(lower=0), atol=1e-6)
    assert np.allclose(table.high, (centre+half).clip(upper=1), atol=1e-6)
    assert reliability_error(table) == pytest.approx(np.average((table.said-table.seen).abs(), weights=table.n))

def test_reliability_of_no_answers():
    assert np.isnan(reliability_error(reliability_bins([], []))) and not len(reliability_table([], []))

def test_confusion_colours_by_row():
    ax = plot_confusion([[100, 0], [1, 1]], ['a', 'b'])
    assert ax.collections[0].get_array().ravel().tolist() == [1, 0, .5, .5] and texts(ax) == ['100', '0', '1', '1']


# ---- real recordings

@pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA is not set: no real recordings')
def test_real_recordings_are_drawn():
    from ecg_nbdev.records import read_record
    for path in sorted((Path(ECG_DATA)/'cpsc2018'/'records-textdx').glob('*.hea'))[:6]:
        ax = plot_ecg(read_record(path), scale=.3)
        ax.figure.canvas.draw()
        assert set(LEADS) <= set(texts(ax))


def test_blocks_of_two_threads_bring_back_the_settings_of_before():
    "They may end in any order; what one of them has set holds until it ends."
    import matplotlib as mpl
    from ecg_nbdev.figures import style
    before = dict(mpl.rcParams)
    for first, second in ((0, 1), (1, 0)):
        blocks = style(), style(dark=True)
        for block in blocks: block.__enter__()
        blocks[first].__exit__(None, None, None)
        assert mpl.rcParams['figure.facecolor'] == ('#14181d' if first == 0 else 'white')
        blocks[second].__exit__(None, None, None)
        assert dict(mpl.rcParams) == before
