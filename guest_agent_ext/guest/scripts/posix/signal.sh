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
# Sends a signal to a command and all its descendants.
#
# Arguments: directory, id, TERM or KILL, or 0 to send nothing; the state that
# the command ends in if the signal kills it. Prints the number of live
# processes.
#
# A process belongs to the command if it has the command's mark, or descends
# from one that has. All are stopped first, until no new ones turn up, as a
# stopped process cannot fork. With LOST the end needs no record, and the
# launcher is killed too.

name_command "$1" "$2"
signal=$3 state_after=$4 since=0 helpers= pid=-
exec 2>/dev/null
if find_record; then
    read_record
    # Processes that outlive a command which ended by itself are left alone.
    [ -n "$ended" ] && [ "$killed" = - ] && { echo 0; exit; }
    # The record's name may be removed or reused at any moment.
    ! is_record "/proc/$shell/fd/3" || record=/proc/$shell/fd/3
    exec 8>>"$record"
fi

has() {
    case " $tree " in *" $1 "*) ;; *) return 1 ;; esac
}

# Tells whether the process $1 can belong to the command: not a kernel thread
# (a child of 2), and not older than the launcher.
may_be() {
    look "$1" && [ "$parent" != 2 ] && [ "$born" -ge "$since" ]
}

grow() {
    for entry in /proc/[0-9]*; do
        process=${entry#/proc/}
        case " $seen " in *" $process "*) continue ;; esac
        may_be "$process" || continue
        if has "$parent" || has_mark "$process" "$mark"; then
            tree="$tree $process"
            [ "$signal" = 0 ] || kill -STOP "$process"
        elif [ "$limit" = $((mark + 1)) ]; then
            helpers="$helpers $process"
        else
            continue
        fi
        seen="$seen $process"
    done
}

# This shell and its parent are left out: the command may have started the
# agent.
tree= seen=" $$ $PPID" before=-
# The command's process may have changed its mark.
if look "$pid" && [ "$born" = "$start" ]; then
    tree=" $pid" seen="$seen $pid"
    [ "$signal" = 0 ] || kill -STOP "$pid"
fi
while [ "$before" != "$tree" ]; do
    before=$tree
    grow
done

alive=0
for process in $tree; do
    look "$process" && [ "$state" != Z ] && alive=$((alive + 1))
done
echo "$alive"
[ "$signal" != 0 ] || exit
# Recorded while the processes are stopped.
[ $alive = 0 ] || echo "killed $state_after" >&8
[ "$state_after" != LOST ] || kill -KILL $helpers
for process in $tree; do
    kill "-$signal" "$process"
    kill -CONT "$process"
done
