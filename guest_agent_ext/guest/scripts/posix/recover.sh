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
# Prints the state of a command.
#
# Arguments: directory, id, and "fence" to take the lock if it is free, so that
# a launch that arrives later does not run the command. Any other word takes
# none.
#
# Prints a line for launchers/posix.py; after "ended" the same as launch.sh.

name_command "$1" "$2"
exec 9>&2 2>/dev/null

tell() {
    tell_end
    show stderr 7 "$err_keeper" cat >&9
    show stdout 5 "$out_keeper" exec cat
    exit
}

if ! find_record; then
    if [ "$3" = fence ]; then
        [ -d "$1" ] || mkdir -p "$1"
        # A dangling link can be made even if the file system is full.
        ln -s fence "$own"
    fi
    [ -L "$own" ] && { echo fenced; exit; }
    find_record || { echo none; exit; }
fi
read_record

alive=
is_helper "$shell" && alive=shell
is_helper "$witness" && alive=witness
read -r uptime _ </proc/uptime
uptime=${uptime%.*}${uptime#*.}
# Resumes processes of the launcher that somebody has stopped. Only bash with a
# witness, or about to get one, stops itself until the end is recorded.
stopped=
[ -z "$ended" ] && [ "$alive" = witness ] && stopped=$shell
[ "$witness" = - ] && [ $((uptime - ${since:-0})) -lt 300 ] && stopped=$shell
# While a record is empty, its maker may live and is about to write the first
# line.
for entry in /proc/[0-9]*; do
    helper=${entry#/proc/}
    look "$helper" && [ "$state" != Z ] || continue
    [ "$state" = T ] || [ "$shell" = - ] || continue
    has_mark "$helper" $((mark + 1)) || continue
    [ "$shell" != - ] || alive=maker
    [ "$state" != T ] || [ "$helper" = "$stopped" ] || kill -CONT "$helper"
done
# After the loop, as a stopped process may be the one that prints the end.
[ -z "$ended" ] || tell
# The command's process is gone if its parent was killed.
look "$pid" && [ "$born" = "$start" ] || state=Z
if [ -z "$alive" ]; then
    known=$shell
    read_record
    [ -z "$ended" ] || tell
    # The first line may have been written since.
    if [ "$shell" = "$known" ]; then
        [ "$state" = Z ] && [ "$pid" != - ] || { echo died; exit; }
        ended="- $end - -"
        tell
    fi
fi
# While a command is prepared, its start is the launcher's.
[ "$pid" != - ] || start=${since:--}
echo "running $pid $start $uptime $state"
