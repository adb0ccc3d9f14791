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
# Functions of all other scripts; posix.py sends this file before each of them.
#
# The files of a command in the directory:
#
#   ID           the record, which is also the lock
#   ID.stdout    the output that is kept
#   ID.stderr
#   ID.in.*      pieces of a large order
#
# Lines of a record: "launcher ID PID START END TOKEN", "helpers OUT ERR
# WITNESS", "command PID START", "killed STATE", "ended STATUS OUT ERR". START
# is the start of a process in centiseconds of the guest's uptime.
#
# The launcher holds the record open as descriptor 3, each keeper holds its
# output file as 6, and the witness holds both output files as 5 and 7. So
# nothing is lost if the directory is removed, covered by a mount or renamed
# while the command runs.
#
# Every process of a command carries the command's mark, and every process of
# the launcher carries the next number. The mark is a limit on file locks,
# which Linux has not enforced for twenty years. It is inherited regardless of
# environment, session and parent.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 077

set_mark() {
    ulimit -w "$1" 2>/dev/null || ulimit -x "$1" 2>/dev/null
}

# Sets state, parent, pgrp, flags, born (start) and status (wait status) of the
# process $1. A process whose first thread has ended lives while others run.
look() {
    line=
    { while read -r more; do line="$line $more"; done <"/proc/$1/stat"
    } 2>/dev/null || return
    set -- ${line##*) }
    state=$1 parent=$2 pgrp=$3 flags=$7 born=${20} status=${50:--}
    [ "$state" != Z ] || [ "${18}" -le 1 ] || state=S
    [ -n "$born" ]
}

# Tells whether the process $1 has the mark $2.
has_mark() {
    while read -r _ name what limit _; do
        [ "$name $what" = "file locks" ] && break
        limit=
    done <"/proc/$1/limits"
    [ "$limit" = "$2" ]
} 2>/dev/null

# Tells whether the process $1 belongs to the launcher and has not ended.
is_helper() {
    look "$1" && [ "$state" != Z ] && has_mark "$1" $((mark + 1))
}

# Sets own, id and mark for the command $2 in the directory $1.
name_command() {
    own=$1/$2 id=$2 mark=$((0x${2##*-} * 2))
}

# Tells whether the file $1 is the command's record.
is_record() {
    [ -f "$1" ] && read -r word owner _ <"$1" &&
        [ "$word $owner" = "launcher $id" ]
} 2>/dev/null

# Sets record to the path of the command's record, even if its name was removed
# or belongs to another file. A record without a first line may be the right
# one.
find_record() {
    record=$own
    is_record "$own" && return
    for record in /proc/[0-9]*/fd/3; do
        # Other processes may have a device there, whose lines never end.
        [ -f "$record" ] || continue
        process=${record%/fd/3}
        has_mark "${process#/proc/}" $((mark + 1)) && is_record "$record" &&
            return
    done
    record=$own
    [ -f "$own" ]
}

# Sets the fields of the record; those that are missing become "-".
read_record() {
    shell=- out_keeper=- err_keeper=- witness=- pid=- start=- killed=- ended=
    while read -r word first second third fourth fifth; do
        case $word in
            launcher) shell=$second since=$third end=$fourth token=$fifth ;;
            helpers) out_keeper=$first err_keeper=$second witness=$third ;;
            command) pid=$first start=$second ;;
            killed) killed=$first ;;
            ended) ended="$first $end $second $third" ;;
        esac
    done <"$record"
}

# Tells whether the command runs, as read_record and /proc know it.
is_running() {
    [ -z "$ended" ] && look "$pid" && [ "$born" = "$start" ] &&
        [ "$state" != Z ]
}

# Prints an output file of the command. Arguments: "stdout 5 $out_keeper" or
# "stderr 7 $err_keeper", and the program that prints a file.
show() {
    for file in "$own.$1" "/proc/$witness/fd/$2" "/proc/$3/fd/6"; do
        [ -f "$file" ] || continue
        shift 3
        [ ! -s "$file" ] || "$@" "$file"
        return
    done
}

# Prints the end of the command for launchers/posix.py; the output follows.
tell_end() {
    echo "ended $pid $start $ended $killed $token"
}
