"""Hands what `settings.ini` says to setuptools: the one place for version, requirements and commands."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

extras = {key.removesuffix("_requirements"): value.split() for key, value in cfg.items() if key.endswith("_requirements")}
readme = here/"README.md"


def on_the_index(text):
    "README.md with links and pictures of this version's tag, since the index holds none of the files beside it."
    of_tag = f"github.com/{cfg['user']}/{cfg['repo']}/{{}}/v{cfg['version']}/"
    text = re.sub(r"(!\[[^]]*\]\()(?!https:)", rf"\1https://{of_tag.format('raw')}", text)
    return re.sub(r"(\]\()(?!https:|#)", rf"\1https://{of_tag.format('blob')}", text)


setup(
    version=cfg["version"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    classifiers=cfg["classifiers"].split("|"),
    long_description=on_the_index(readme.read_text(encoding="utf-8")) if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    packages=find_packages(include=["ecg_nbdev", "ecg_nbdev.*"]),
    package_data={"ecg_nbdev": ["py.typed", "data/*", "data/**/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False,
)
