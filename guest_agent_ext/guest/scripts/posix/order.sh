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
# Reads the order from stdin and becomes the command.
#
# The rest of stdin is the command's own. A field of the order is a line that
# begins with "."; if the field has several lines, the earlier ones begin with
# "+". Fields: working directory, NAME=VALUE for each variable, an empty field,
# the number of fields that follow, then the command and its arguments. No
# variable has a name that is used here. The order of an attached command is in
# descriptor 4 instead, and in a terminal stderr becomes the terminal's only when
# there is something to execute.
#
# If nothing is executed, the last word on stderr is the token.

trap "echo $GUEST_AGENT_TOKEN >&2" EXIT
unset GUEST_AGENT_TOKEN GUEST_AGENT_SCRIPT
[ -z "$BASH_VERSION" ] || shopt -s execfail
umask 022
[ ! -e /proc/self/fd/4 ] || exec 5<&0 <&4 4<&-
newline='
'

take() {
    value=
    while IFS= read -r line; do
        case $line in
            +*) value=$value${line#+}$newline ;;
            *)
                value=$value${line#.}
                return
                ;;
        esac
    done
    echo 'What it is to run came in part only' >&2
    exit 126
}

take
cd -P -- "$value" || exit 126
unset OLDPWD
while take && [ -n "$value" ]; do
    # Some shells print a warning for some values, such as an unknown locale.
    command export "$value" 2>/dev/null ||
        { echo "${value%%=*}: cannot be set" >&2; exit 126; }
done
take
fields=$value
set --
while [ $# -lt "$fields" ]; do
    take
    set -- "$@" "$value"
done
case $1 in -*) echo "exec: $1: not found" >&2; exit 127 ;; esac
if [ -e /proc/self/fd/5 ]; then
    exec <&5 5<&-
    if [ -t 1 ]; then
        case $1 in
            */*) [ -x "$1" ] && [ ! -d "$1" ] ;;
            *) command -v "$1" >/dev/null ;;
        esac || { echo "exec: $1: not found" >&2; exit 127; }
        exec 2>&1
    fi
fi
exec "$@"
exit
