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
# Sends a signal to a command and all that descends from it.
#
# Arguments: directory, id, TERM or KILL, the state that the command ends in by
# that. Prints how many processes were alive.
#
# A process belongs to the command if it is it, carries its mark in its
# environment, descends from one that does, or is in the session that it made.
# All are stopped first, until no new ones turn up: what is stopped cannot
# fork.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
own=$1/$2 mark=GUEST_AGENT_COMMAND=$2 signal=$3 status=$4
[ -s "$own.pid" ] && [ ! -s "$own.result" ] || { echo 0; exit; }
read -r command start <"$own.pid"
exec 2>/dev/null

# Sets state, parent, session and start time of the process $1.
look() {
    { read -r line <"/proc/$1/stat"; } || return
    set -- ${line##*) }
    state=$1 parent=$2 session=$4 born=${20}
}

has() {
    case " $tree " in *" $1 "*) ;; *) return 1 ;; esac
}

is_marked() {
    while read -r line || [ -n "$line" ]; do
        case $line in *"$mark"*) return ;; esac
    done <"/proc/$1/environ"
    return 1
}

grow() {
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        has "$pid" && continue
        look "$pid" || continue
        if has "$parent" || [ "$session" = "$command" ] || is_marked "$pid"
        then
            tree="$tree $pid"
            kill -STOP "$pid"
        fi
    done
}

# The pid may be another process's by now.
look "$command" && [ "$born" = "$start" ] || { echo 0; exit; }
tree=$command before=
kill -STOP "$command"
while [ "$before" != "$tree" ]; do
    before=$tree
    grow
done

alive=0
for pid in $tree; do
    look "$pid" && [ "$state" != Z ] && alive=$((alive + 1))
done
# Noted while they are stopped. An empty file needs no room.
[ $alive = 0 ] || : >"$own.killed-$status"
for pid in $tree; do
    kill "-$signal" "$pid"
    kill -CONT "$pid"
done
echo "$alive"
