#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""INI files: those that operators write, written for them."""

from collections.abc import Mapping
import configparser
import pathlib

_ETC = pathlib.Path(__file__).parents[2] / 'etc/guest_agent_ext'
_SAMPLE_PASTE = _ETC / 'api-paste.ini.sample'
#: The pipeline of guest-agent-api, which operators use as it is.
GUEST_AGENT_API_PASTE = _ETC / 'guest-agent-api-paste.ini'

Sections = Mapping[str, Mapping[str, object]]


def merge(*layers: Sections) -> dict[str, dict[str, object]]:
    """Lay sections over each other; what comes later holds."""
    merged: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, options in layer.items():
            merged.setdefault(section, {}).update(options)
    return merged


def paste(prefix: pathlib.Path) -> dict[str, dict[str, object]]:
    """Return Nova's paste configuration with the extension's sections.

    What the documentation tells an operator to do, done to the stock file.

    :param prefix: prefix of the environment that Nova is installed in
    """
    stock = _read(prefix / 'etc/nova/api-paste.ini')
    sample = _read(_SAMPLE_PASTE)
    return merge(
        {section: dict(stock[section]) for section in stock.sections()},
        {section: dict(sample[section]) for section in sample.sections()},
    )


class _Parser(configparser.RawConfigParser):
    """Keys are paths of URLs too, whose case matters."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _read(path: pathlib.Path) -> configparser.RawConfigParser:
    parser = _Parser()
    parser.read_string(path.read_text())
    return parser


def write(path: pathlib.Path, sections: Sections) -> None:
    """Write a file with passwords, readable by its owner only."""
    lines = []
    for section, options in sections.items():
        lines.append(f'[{section}]')
        lines += [f'{name} = {value}' for name, value in options.items()]
    path.touch(mode=0o600)
    path.write_text('\n'.join(lines) + '\n')
