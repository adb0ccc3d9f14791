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
#
# Keeps a piece of an order, read from stdin. The launcher joins the pieces.
#
# Arguments: directory, id, name of the pieces, number (two digits). Exits with
# 0 if the whole piece was written.

name_command "$1" "$2"
[ -d "$1" ] || mkdir -p "$1"
set -C
cat >"$own.in.$3.$4"
