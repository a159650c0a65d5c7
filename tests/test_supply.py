"Locked versions fit what is asked for; workflows run commands and files that exist, and may write only where they must."
import re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT/'.github'/'workflows').glob('*.yml'))
SHELL = {'test', 'mkdir', 'mv', 'zip', 'gh', 'sudo', 'true'}
AUDIT = {'bandit', 'pip-audit'} # come with the extra that the workflow installs


def settings():
    parser = ConfigParser(delimiters=['='], interpolation=None)
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']

def pins(name):
    lines = (ROOT/name).read_text(encoding='utf-8').splitlines()
    return {req.name.lower().replace('_', '-').replace('.', '-'): req
            for req in (Requirement(line) for line in lines if line and not line.startswith('#'))}

def locked(): return {name: next(iter(req.specifier)).version for name, req in pins('requirements-lock.txt').items()}


def test_the_lock_holds_what_the_package_and_its_developers_ask_for():
    lock, cfg = locked(), settings()
    parts = ('requirements', 'dev_requirements', 'audit_requirements')
    asked = [Requirement(r) for part in parts for r in cfg[part].split()]+list(pins('constraints.txt').values())
    names = {req: req.name.lower().replace('_', '-') for req in asked}
    assert [str(req) for req, name in names.items() if name in lock and lock[name] not in req.specifier] == []
    assert [str(req) for req in asked[:-len(pins('constraints.txt'))] if names[req] not in lock] == []
    assert len(lock) > 100 and all(len(req.specifier) == 1 and '==' in str(req) for req in pins('requirements-lock.txt').values())

def test_the_lock_is_of_no_single_machine():
    text = (ROOT/'requirements-lock.txt').read_text(encoding='utf-8')
    assert ' @ ' not in text and 'file:' not in text and '+' not in text


def jobs(path):
    workflow = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert {'name', 'jobs', 'permissions'} <= set(workflow) and True in workflow # `on` is a yes in YAML 1.1
    return workflow, workflow['jobs']

def words(step):
    "The commands of a step, each as its words."
    return [part.split() for part in re.split(r'&&|\|\||\n', step['run'].split(' #')[0]) if part.strip()]

@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_runs_what_there_is(path):
    workflow, found = jobs(path)
    assert workflow['permissions'].get('contents') in ('read', None) and 'write-all' not in str(workflow['permissions'])
    targets = set(re.findall(r'^([a-z0-9-]+):', (ROOT/'Makefile').read_text(encoding='utf-8'), re.M))
    extras = {key.removesuffix('_requirements') for key in settings() if key.endswith('_requirements')}
    for job in found.values():
        assert job['runs-on'] == 'ubuntu-latest' and job['steps']
        for step in job['steps']:
            assert ('uses' in step) != ('run' in step)
            if 'uses' in step: assert re.fullmatch(r'[\w.-]+/[\w./-]+@[\w./]+', step['uses']), step
            for command, *rest in words(step) if 'run' in step else []:
                if command == 'make': assert rest[0] in targets, step
                elif '/' not in command:
                    assert command in SHELL | AUDIT | {'pip'} or shutil.which(command, path=Path(sys.executable).parent), step
                assert all((ROOT/word).is_file() for word in rest if re.fullmatch(r'[\w./]+\.(py|txt)', word)), step
                for given in re.findall(r"'\.\[([\w,]+)\]'", ' '.join(rest)): assert set(given.split(',')) <= extras, step

def test_a_release_says_where_it_comes_from():
    "Provenance and a list of all parts, written by the job that builds; the one that publishes may do nothing else."
    _, found = jobs(ROOT/'.github'/'workflows'/'release.yml')
    used = [step.get('uses', '').split('@')[0] for step in found['build']['steps']]
    assert {'actions/attest-build-provenance', 'actions/attest-sbom'} <= set(used)
    made = used.index('actions/attest-sbom')
    assert any('make sbom' in step.get('run', '') for step in found['build']['steps'][:made])
    assert found['build']['permissions'] == {'contents': 'read', 'id-token': 'write', 'attestations': 'write'}
    assert found['publish']['permissions'] == {'id-token': 'write'} and found['publish']['needs'] == 'build'

def test_suspicious_patterns_have_a_reason():
    "What bandit finds is mended, or its line says why it stays; where bandit is not installed, CI looks."
    reasons = [line for path in (ROOT/'ecg_nbdev').rglob('*.py') for line in path.read_text(encoding='utf-8').splitlines()
               if 'nosec' in line]
    assert reasons and all(re.search(r'# \w.+ # nosec B\d+$', line) for line in reasons)
    if not shutil.which('bandit', path=Path(sys.executable).parent): return
    done = subprocess.run([Path(sys.executable).parent/'bandit', '-q', '-r', ROOT/'ecg_nbdev', '-ll'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
