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

"""The database's clock in the words of each database.

PostgreSQL runs in no other test.
"""

import pytest
import sqlalchemy as sa

from guest_agent_ext.db import sqltypes


def dialect_of(name: str) -> sa.Dialect:
    dialect: sa.Dialect = sa.make_url(f'{name}://').get_dialect()()
    return dialect


@pytest.mark.parametrize(
    ('dialect', 'clock', 'unit'),
    [
        ('sqlite', "'now', ", "|| ' seconds'"),
        ('mysql', 'UTC_TIMESTAMP(6) + INTERVAL', ' SECOND'),
        ('mariadb', 'UTC_TIMESTAMP(6) + INTERVAL', ' SECOND'),
        (
            'postgresql',
            "timezone('utc', clock_timestamp())",
            "* interval '1 second'",
        ),
    ],
)
def test_clock(dialect: str, clock: str, unit: str) -> None:
    text = str(
        sa.select(sqltypes.utc_in(-1.5)).compile(
            dialect=dialect_of(dialect), compile_kwargs={'literal_binds': True}
        )
    )
    assert clock in text and unit in text
    assert '(-1.5)' in text


@pytest.mark.parametrize(
    ('dialect', 'expected'),
    [
        ('mysql', 'DATETIME(6)'),
        ('mariadb', 'DATETIME(6)'),
        ('postgresql', 'TIMESTAMP WITHOUT TIME ZONE'),
    ],
)
def test_times_keep_fractions(dialect: str, expected: str) -> None:
    assert sqltypes.DateTime.compile(dialect_of(dialect)) == expected


@pytest.mark.parametrize('dialect', ['mysql', 'mariadb'])
def test_output_is_not_cut_at_64_kib(dialect: str) -> None:
    assert sqltypes.Blob.compile(dialect_of(dialect)) == 'MEDIUMBLOB'
