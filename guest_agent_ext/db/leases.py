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

"""What only one process does at a time."""

from oslo_db import exception as db_exc
import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_T = models.Lease


@session.retried
def take(name: str, holder: str, seconds: float) -> bool:
    """Take a lease, or keep it.

    :param holder: a uuid of who takes it
    :param seconds: from now until it may be taken by another
    :returns: False while another holds it
    """
    values = {'holder': holder, 'expires_at': sqltypes.utc_in(seconds)}
    free = sa.or_(_T.holder == holder, _T.expires_at < sqltypes.utc_in())
    with session.writer() as db:
        if session.changed(
            db, sa.update(_T).where(_T.name == name, free).values(values)
        ):
            return True
    try:
        with session.writer() as db:
            db.execute(sa.insert(_T).values(name=name, **values))
    except db_exc.DBDuplicateEntry:
        return False
    return True


@session.retried
def release(name: str, holder: str) -> None:
    """Give a lease back, if it is still held."""
    with session.writer() as db:
        db.execute(sa.delete(_T).where(_T.name == name, _T.holder == holder))
