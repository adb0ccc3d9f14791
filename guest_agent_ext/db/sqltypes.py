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

"""SQL that differs between databases: the database's clock, and wide columns.

Every time in the tables is UTC on the database's clock, so that the clocks of
two hosts are never compared.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext import compiler
from sqlalchemy.sql import compiler as sql_compiler
from sqlalchemy.sql import expression

_Compiler = sql_compiler.SQLCompiler

# MySQL's plain types have no fractions of a second and at most 64 KiB.
DateTime = sa.DateTime().with_variant(
    mysql.DATETIME(fsp=6), 'mysql', 'mariadb'
)
Blob = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), 'mysql', 'mariadb')


# Named like a function of SQL.
class utc_in(expression.FunctionElement[Any]):
    """The database's time in UTC, ``seconds`` from now."""

    type = sa.DateTime()
    inherit_cache = True

    def __init__(
        self,
        seconds: float | sa.ColumnElement[int] | sa.ColumnElement[float] = 0.0,
    ) -> None:
        super().__init__(
            expression.literal(seconds, sa.Float)
            if isinstance(seconds, int | float)
            else seconds
        )


def _seconds(element: utc_in, processor: _Compiler, **kw: object) -> str:
    return str(processor.process(element.clauses, **kw))


@compiler.compiles(utc_in, 'sqlite')
def _sqlite(element: utc_in, processor: _Compiler, **kw: object) -> str:
    # SQLAlchemy stores times as text with six digits, and SQLite has three.
    return (
        "(strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', "
        "(%s) || ' seconds') || '000')" % _seconds(element, processor, **kw)
    )


@compiler.compiles(utc_in, 'mysql')
@compiler.compiles(utc_in, 'mariadb')
def _mysql(element: utc_in, processor: _Compiler, **kw: object) -> str:
    return '(UTC_TIMESTAMP(6) + INTERVAL (%s) SECOND)' % _seconds(
        element, processor, **kw
    )


@compiler.compiles(utc_in, 'postgresql')
def _postgresql(element: utc_in, processor: _Compiler, **kw: object) -> str:
    return (
        "(timezone('utc', clock_timestamp()) "
        "+ (%s) * interval '1 second')" % _seconds(element, processor, **kw)
    )
