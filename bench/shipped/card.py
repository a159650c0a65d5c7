"""The model card of the shipped model: `card.md` with numbers in it."""
from pathlib import Path

import pandas as pd

from ecg_nbdev.evaluation import bootstrap
from .scores import RESULTS, auroc_score, f1_score, interval

TEMPLATE = Path(__file__).with_name('card.md')


def with_interval(row): return f'{row.value:.3f} ({row.low:.3f} – {row.high:.3f})'

def rows(lines): return '\n'.join('| '+' | '.join(map(str, line))+' |' for line in lines)

def class_rows(per_class, scored):
    "A line for each class: support, areas and F1 with intervals, rates."
    area, f1 = interval(scored, auroc_score), interval(scored, f1_score)
    return rows((r['class'], r['support'], with_interval(area.loc[r['class']]), with_interval(f1.loc[r['class']]),
                 *(f'{r[rate]:.2f}' for rate in ('recall', 'specificity', 'precision'))) for r in per_class)

def card(predictor, scored):
    "The model card as Markdown: use, data, scores, known failures, attribution."
    about, preparation = predictor.about, predictor.preparation
    least, next_to_least = sorted(about['per_class'], key=lambda r: r['precision'])[:2]
    fewer = pd.read_csv(RESULTS/'real_reduced.csv')
    return TEMPLATE.read_text(encoding='utf-8').format(
        classes=', '.join(predictor.classes), scored_on=about['scored_on'],
        weights=sum(p.numel() for p in predictor.model.parameters()), data=about['data'].split('then ')[1],
        fs=preparation.fs, highpass=preparation.highpass, seconds=predictor.seconds,
        score_rows=rows((r.Index, with_interval(r)) for r in bootstrap(scored).itertuples()),
        class_rows=class_rows(about['per_class'], scored),
        reduced_rows=rows((r.available, with_interval(r)) for r in fewer.itertuples()),
        least=least['class'], least_ppv=least['precision'],
        next_to_least=next_to_least['class'], next_to_least_ppv=next_to_least['precision'])
