"""Hands what `settings.ini` says to setuptools: the one place for version, requirements and commands."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

extras = {key.removesuffix("_requirements"): value.split() for key, value in cfg.items() if key.endswith("_requirements")}
readme = here/"README.md"

setup(
    version=cfg["version"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    classifiers=cfg["classifiers"].split("|"),
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    packages=find_packages(include=["ecg_nbdev", "ecg_nbdev.*"]),
    package_data={"ecg_nbdev": ["py.typed", "data/*", "data/**/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False,
)
