"""The model card of the shipped model: `card.md` with numbers in it."""
from pathlib import Path

import pandas as pd

from .networks import ONE, SEEDS
from .scores import RESULTS, auroc_score, f1_score, interval

TEMPLATE = Path(__file__).with_name('card.md')
WAYS = {'pooled': 'all data sets pooled', 'within data sets': 'pairs of one data set only',
        'CPSC2018': "CPSC2018's part"}
RATES = ('recall', 'specificity', 'precision')
RERUN = {'rerun_auroc': ('pooled', 'macro_auroc'), 'rerun_within': ('within data sets', 'macro_auroc'),
         'rerun_f1': ('pooled', 'macro_f1'), 'rerun_exact': ('pooled', 'exact_match')}


def with_interval(row): return f'{row.value:.3f} ({row.low:.3f} – {row.high:.3f})'

def rows(lines): return '\n'.join('| '+' | '.join(map(str, line))+' |' for line in lines)

def score_rows(evaluation):
    "A line for each way of pooling and each score, and one for the recordings with none of the nine."
    none = evaluation.none_of_the_classes
    lines = [(WAYS[r.way], r.recordings, r.score, with_interval(r)) for r in evaluation.three_ways.itertuples()]
    extra = pd.Series({'value': none['macro_auroc'], 'low': none['low'], 'high': none['high']})
    return rows([*lines, ('pooled, none of the nine as negatives', len(evaluation)+none['recordings'], 'macro_auroc',
                          with_interval(extra))])

def class_rows(per_class, scored):
    "A line for each class: support, unknown labels, areas and F1 with intervals, rates."
    area, f1 = interval(scored, auroc_score), interval(scored, f1_score)
    return rows((r['class'], r['support'], r['unknown'], with_interval(area.loc[r['class']]),
                 with_interval(f1.loc[r['class']]), *(f'{r[rate]:.2f}' for rate in RATES))
                for r in per_class)

def left_out_rows(table):
    "A line for each data set: a network tuned on the others, and one that has seen no real recording."
    wide = table.assign(shown=[with_interval(r) for r in table.itertuples()])
    wide = wide.pivot(index=['source', 'recordings', 'classes'], columns='system', values='shown').reset_index()
    return rows(zip(wide.source, wide.recordings, wide.classes, wide['tuned on the others'], wide.simulated))

def use_rows(table):
    "A line for each way to answer, chosen on the other folds, then on the other data sets."
    lines = []
    for (chosen_on, use), part in table.groupby(['chosen_on', 'use'], sort=False):
        score, first = part.set_index('score'), part.iloc[0]
        lines.append((use, chosen_on, with_interval(score.loc['macro_f1']), with_interval(score.loc['exact_match']),
                      f'{first.unanswered} of {first.recordings}',
                      f'{first.none_of_the_nine-first.of_these_answered} of {first.none_of_the_nine}'))
    return rows(lines)

def card(predictor, evaluation):
    "The model card as Markdown: use, data, scores, known failures, attribution."
    about, preparation = predictor.about, predictor.preparation
    least, next_to_least = sorted(about['per_class'], key=lambda r: r['precision'])[:2]
    saved = {name: pd.read_csv(RESULTS/f'real_{name}.csv') for name in ('reduced', 'sources', 'sex', 'scores', 'uses')}
    sex = saved['sex'].set_index('sex')
    rerun = pd.read_csv(RESULTS/'real_scores_rerun.csv').query("system == 'tuned, one'").set_index(['way', 'score'])
    again = {name: with_interval(rerun.loc[at]) for name, at in RERUN.items()}
    simulated = pd.read_csv(RESULTS/'pretrain.csv').groupby('network').simulated.first()
    before = saved['scores'].query("system == 'simulated, one' and way == 'pooled' and score == 'macro_auroc'").iloc[0]
    return TEMPLATE.read_text(encoding='utf-8').format(
        classes=', '.join(predictor.classes), scored_on=about['scored_on'],
        weights=sum(p.numel() for p in predictor.model.parameters()), data=about['data'].split('then ')[1],
        fs=preparation.fs, highpass=preparation.highpass, seconds=predictor.seconds,
        simulated=simulated[str(SEEDS[0])], student=simulated[ONE],
        complete=evaluation.part.known.all(1).sum(), labelled=len(evaluation),
        score_rows=score_rows(evaluation), class_rows=class_rows(about['per_class'], evaluation.part),
        use_rows=use_rows(saved['uses']), left_out_rows=left_out_rows(saved['sources']), before=with_interval(before),
        reduced_rows=rows((r.available, with_interval(r)) for r in saved['reduced'].itertuples()),
        std_women=sex.loc['F', 'answered STD'], women=sex.loc['F', 'normal recordings'],
        std_men=sex.loc['M', 'answered STD'], men=sex.loc['M', 'normal recordings'],
        none=evaluation.none_of_the_classes['recordings'],
        **again,
        none_ill=evaluation.none_of_the_classes['answered_not_normal'],
        least=least['class'], least_ppv=least['precision'],
        next_to_least=next_to_least['class'], next_to_least_ppv=next_to_least['precision'])
