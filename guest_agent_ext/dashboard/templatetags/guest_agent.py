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

"""Text of a server in a page, unchanged and harmless."""

import html
import json
from typing import Any

from django import template
from django.utils import safestring

register = template.Library()


@register.filter
def exact(value: Any) -> safestring.SafeString:
    """Return a text as HTML, every character as it is.

    Horizon's own escaping changes ``{$`` and ``$}``, with which AngularJS
    marks expressions. This does not, so it is for elements below one with
    ``ng-non-bindable`` only: there AngularJS looks for none.
    """
    return safestring.mark_safe(  # nosec: escaped
        html.escape('' if value is None else str(value))
    )


@register.filter
def exact_json(value: Any) -> safestring.SafeString:
    """Return a value as JSON in the HTML of an attribute; as exact()."""
    return exact(json.dumps(value))
