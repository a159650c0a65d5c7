"""How fast the networks train: windows a second of one training step (forward, backward, optimizer), side by side in one run.

    python bench/train.py                                              the family, and twelve plain nn.LSTM called one after the other
    python bench/train.py --peers-python /work/peers-venv/bin/python   and tsai's InceptionTime, xresnet1d101 and LSTM 2x256

Peers need an environment of their own (torch 2.14.1, torchvision 0.29.1, tsai). Each group runs in a process of its own, and the processes take turns, one step each, so that what else
the machine does hits all alike. Speeds are medians over the turns. `kept memory` runs peers and plain LSTMs with the allocator setting that this package's workers make, so that
its share is seen apart. The table is written to bench/results/train.csv, machine and versions beside it in train.json.
"""
import argparse, csv, ctypes, json, os, platform, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FS = 100

# ---- what is measured: name → a function that makes (network, loss)

def ours(arch, **options):
    def make():
        from ecg_nbdev.losses import create_loss
        from ecg_nbdev.models import create_model
        return create_model(arch, fs=FS, **options), create_loss()
    return make

TWELVE = {'hidden': 64, 'bidirectional': False, 'pool': ('last',), 'bf16': False, 'dropout': 0.}  # the method's blocks, float32

def plain():
    "The twelve-block model, its blocks called one after the other."
    import ecg_nbdev.blocks as blocks
    blocks.run_blocks = blocks.one_by_one
    return ours('multilead', **TWELVE)()

def peer(name):
    def make():
        import torch
        from tsai.models.InceptionTime import InceptionTime
        from tsai.models.RNN import LSTM
        from tsai.models.XResNet1d import xresnet1d101
        made = {'InceptionTime': lambda: InceptionTime(12, 9), 'xresnet1d101': lambda: xresnet1d101(12, 9), 'LSTM 2x256': lambda: LSTM(12, 9, hidden_size=256, n_layers=2)}
        return made[name](), torch.nn.BCEWithLogitsLoss()
    return make

PEERS = ('InceptionTime', 'xresnet1d101', 'LSTM 2x256')
GROUPS = {
    'family': {'crnn': ours('crnn'), 'crnn, float32': ours('crnn', bf16=False), 'crnn, joint stem': ours('crnn', stem='joint'), 'multilead': ours('multilead'),
               'multilead_shared': ours('multilead_shared'), 'joint': ours('joint'), 'lead': ours('lead'), 'twelve blocks': ours('multilead', **TWELVE),
               'twelve blocks, bfloat16': ours('multilead', **{**TWELVE, 'bf16': True})},
    'plain': {'twelve nn.LSTM': plain},
    'plain, kept memory': {'twelve nn.LSTM, kept memory': plain},
    'peers': {name: peer(name) for name in PEERS},
    'peers, kept memory': {f'{name}, kept memory': peer(name) for name in PEERS},
}

# ---- in the process of a group

def keep_memory():
    "The allocator setting of `ecg_nbdev.blocks`, for a process that does not use its workers."
    for option, value in ((-8, 1), (-3, 1 << 30), (-1, (1 << 31)-1)): ctypes.CDLL(None).mallopt(option, value)

def trainer(make, batch, seconds):
    "A function that does one training step, the operations of one window's forward pass, the parameters."
    import torch
    from ecg_nbdev.models import forward_cost
    torch.manual_seed(0)
    model, loss = make()
    x, y = torch.randn(batch, 12, round(seconds*FS)), (torch.rand(batch, 9) < .2).float()
    optimizer = torch.optim.AdamW(model.parameters())
    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return step, forward_cost(model, x[:1])['flops'], sum(p.numel() for p in model.parameters())

def matmul_peak(dtype, n=2048):
    "Operations a second of a large matrix product, the best of several."
    import torch
    a = torch.randn(n, n).to(getattr(torch, dtype))
    def once():
        start = time.perf_counter(); a@a
        return time.perf_counter()-start
    return 2*n**3/min(once() for _ in range(10))

def equality():
    "Largest difference between the twelve-block model and the same model with plain LSTMs, outputs and gradients, as a share of the largest value."
    import torch
    import ecg_nbdev.blocks as blocks
    torch.manual_seed(0)
    model, loss = ours('multilead', **TWELVE)()
    x, y, fast, found = torch.randn(16, 12, 10*FS), (torch.rand(16, 9) < .2).float(), blocks.run_blocks, []
    for run in (blocks.one_by_one, fast):
        blocks.run_blocks = run
        out = model(x)
        found.append([out, *torch.autograd.grad(loss(out, y), model.parameters())])
    return max(((a-b).abs().max()/a.abs().max()).item() for a, b in zip(*found))

def serve(group, args):
    "Answer lines of JSON: ['step', name], ['peak', dtype] or ['equality']."
    import torch
    torch.set_num_threads(args.threads)
    if 'kept memory' in group: keep_memory()
    steps = {}
    for line in sys.stdin:
        what, *name = json.loads(line)
        if what == 'make':
            steps[name[0]], flops, parameters = trainer(GROUPS[group][name[0]], args.batch, args.seconds)
            answer = {'flops': flops, 'parameters': parameters, 'torch': torch.__version__}
            steps[name[0]]()
        elif what == 'step':
            clock, cpu = time.perf_counter(), time.process_time()
            steps[name[0]]()
            answer = time.perf_counter()-clock, time.process_time()-cpu
        else: answer = {'peak': matmul_peak, 'equality': equality}[what](*name)
        print(json.dumps(answer), flush=True)

# ---- in the process that measures

class Group:
    "The process of a group."
    def __init__(self, name, python, args):
        self.name = name
        self.process = subprocess.Popen([python, '-W', 'ignore', __file__, '--serve', name, '--batch', str(args.batch), '--seconds', str(args.seconds), '--threads', str(args.threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    def ask(self, *question):
        self.process.stdin.write(json.dumps(question)+'\n'); self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer: raise SystemExit(f'the process of {self.name} ended: see its message above')
        return json.loads(answer)

def cpu_name():
    lines = [line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')] if Path('/proc/cpuinfo').exists() else []
    return lines[0].split(':')[1].strip() if lines else platform.processor()

def measure(args):
    chosen = [g for g in GROUPS if args.peers_python or not g.startswith('peers')]
    groups = {g: Group(g, args.peers_python if g.startswith('peers') else sys.executable, args) for g in chosen}
    cases = [(g, case) for g in chosen for case in GROUPS[g]]
    info = {case: groups[g].ask('make', case) for g, case in cases}
    times, peaks = {case: [] for _, case in cases}, {'float32': [], 'bfloat16': []}
    for turn in range(args.repeats):
        for dtype in peaks: peaks[dtype].append(groups['family'].ask('peak', dtype))
        for g, case in cases: times[case].append(groups[g].ask('step', case))
        print(f'turn {turn+1} of {args.repeats}', file=sys.stderr, flush=True)
    return info, times, {d: max(p) for d, p in peaks.items()}, groups['family'].ask('equality')

def table(info, times, peaks, batch):
    rows = []
    for case, turns in times.items():
        t, cpu = zip(*turns)
        median = statistics.median(t)
        rows.append({'network': case, 'windows/s': batch/median, 'best windows/s': batch/min(t), 'ms/step': 1e3*median, 'cpu ms/step': 1e3*statistics.median(cpu), 'parameters': info[case]['parameters'],
                     'Mflops/window': info[case]['flops']/1e6, 'share of float32 matmul peak': 3*batch*info[case]['flops']/median/peaks['float32']})
    return rows

def ratios(times):
    "Speed of one over another: the median over the turns of the ratio of their times, by the clock and by the processor."
    pairs = [('twelve blocks', 'twelve nn.LSTM'), ('twelve blocks', 'twelve nn.LSTM, kept memory'), ('twelve blocks, bfloat16', 'twelve nn.LSTM')]
    pairs += [(case, peer) for case in ('crnn', 'multilead') for peer in times if peer.split(',')[0] in PEERS]
    over = lambda fast, slow, i: statistics.median(b[i]/a[i] for a, b in zip(times[fast], times[slow]))
    return [{'faster': a, 'than': b, 'times': over(a, b, 0), 'times by cpu': over(a, b, 1)} for a, b in pairs if b in times]

def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as f:
        writer = csv.DictWriter(f, list(rows[0])); writer.writeheader()
        writer.writerows({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()} for row in rows)

def show(rows):
    widths = [max(len(f'{v:.4g}' if isinstance(v, float) else str(v)) for v in [k, *(row[k] for row in rows)]) for k in rows[0]]
    for row in [dict(zip(rows[0], rows[0])), *rows]:
        print('  '.join((f'{v:.4g}' if isinstance(v, float) else str(v)).rjust(w) for v, w in zip(row.values(), widths)))
    print()

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers-python', help='the Python of an environment that holds tsai')
    parser.add_argument('--repeats', type=int, default=7, help='turns')
    parser.add_argument('--batch', type=int, default=64, help='windows in a batch')
    parser.add_argument('--seconds', type=float, default=10., help='length of a window')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='threads of each process')
    parser.add_argument('--out', type=Path, default=ROOT/'bench/results', help='folder of train.csv, train_ratios.csv and train.json')
    parser.add_argument('--serve', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve: return serve(args.serve, args)
    info, times, peaks, difference = measure(args)
    rows, pairs = table(info, times, peaks, args.batch), ratios(times)
    show(rows); show(pairs)
    print(f'matmul peak: float32 {peaks["float32"]/1e9:.0f}, bfloat16 {peaks["bfloat16"]/1e9:.0f} Gflop/s; twelve blocks against plain LSTMs, largest relative difference: {difference:.1e}')
    write_csv(args.out/'train.csv', rows); write_csv(args.out/'train_ratios.csv', pairs)
    about = {'command': 'python bench/train.py'+(' --peers-python …' if args.peers_python else ''), 'cpu': cpu_name(), 'threads': args.threads, 'batch': args.batch, 'seconds': args.seconds,
             'fs': FS, 'turns': args.repeats, 'torch': {case: i['torch'] for case, i in info.items()}, 'matmul_peak_flops': peaks, 'twelve_blocks_difference': difference, 'times_s': times}
    (args.out/'train.json').write_text(json.dumps(about, indent=1)+'\n')

if __name__ == '__main__': main()
