"""The shipped model, from simulated hearts to a folder in the package: `make pretrained`, under two hours on two cores.

Four systems of the same network, three seeds each, on the labelled real recordings under ECG_DATA; what is trained on
real ones is trained in five folds, on 25, 50, 100 or all recordings of the other four:
  a               simulated recordings only
  b               real recordings only
  c, tuned alone  a's network, tuned on real and simulated recordings
  c               the mean of a's weights and those tuned (`mix_weights`, share .5, fixed before it was tried)
The model that ships is an ensemble of three c, tuned on every real recording; its thresholds and calibration come from
the cross-validated predictions of the same recipe.

Networks are kept in runs/pretrained, so that a run can be taken up again, or be shared out: `--stage pretrain --seed
1`, `--stage tune --seed 1`. Without a stage all that is missing is done, scored and written: tables to bench/results
(real_*.csv, pretrain.csv), the model to ecg_nbdev/data/pretrained. The parts are in bench/shipped.
"""
import pandas as pd
import torch
from fastcore.script import call_parse

from ecg_nbdev.blocks import keep_memory
from real import data_folder, real_store
from shipped.networks import RUNS, SEEDS, Networks, simulation_only
from shipped.reduced import reduced
from shipped.scores import curves, scores, write_table
from shipped.ship import ship


@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …: the real recordings; ECG_DATA where not given
    stage:str='all', # 'pretrain' and 'tune' stop after it
    seed:int=None, # only this one, with a stage
    epochs:int=50, # of pretraining
    n:int=4096, # simulated recordings an epoch
    threads:int=2, # of torch
    out:str='ecg_nbdev/data/pretrained', # the model folder
):
    "Train, measure and write the model that ships."
    torch.set_num_threads(threads)
    keep_memory()
    folder, seeds = data_folder(data), SEEDS if seed is None else (seed,)
    for s in seeds: simulation_only(s, epochs, n)
    if stage == 'pretrain': return
    networks = Networks(real_store(folder), epochs, n)
    networks.tune_all(seeds)
    if stage == 'tune': return
    write_table(pd.concat([pd.read_csv(RUNS/f'pretrain-{s}.csv') for s in SEEDS]), 'pretrain')
    curves(networks)
    scores(networks)
    reduced(networks)
    ship(networks, out)
