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
# Runs one command, at most once, and keeps the result until release.sh.
#
# Arguments: directory, id, boot, ticket (guest uptime in centiseconds),
# control group, number of bytes to keep of each stream, end to keep (head or
# tail), name of the order's pieces ("-" if none) and their number, shell, user
# to run the command as, and the text of order.sh; attach.sh adds more if the
# streams are attached. The order is read from stdin or from the pieces;
# order.sh describes its format.
#
# Prints one line for launchers/posix.py, followed by the command's stdout. The
# command's stderr goes to stderr.
#
# Processes beside the command: this shell, which is the command's parent; a
# keeper for each stream, which bounds and counts the output; and a witness,
# which waits for the end, records it and prints it. This shell reads a pipe
# that the witness holds, and does not wait for the command. So the command
# stays a zombie after its end, and the witness can read the true wait status.

directory=$1 boot=$3 ticket=$4 group=$5 keep=$6 end=$7 pieces=$8
name_command "$1" "$2"
shift 8
count=$1 sh=$2 user=$3 order=$4
shift 4
attach= out_name= err_name= holder= setsid_option= session_option=

refuse() { echo "refused $1"; exit; }

# A request that was held back may arrive late, or after a reboot.
read -r running_boot </proc/sys/kernel/random/boot_id
{ read -r name <"$directory/name.id"; } 2>/dev/null
[ "${running_boot%-*}-$name" = "$boot" ] || refuse boot
read -r uptime _ </proc/uptime
[ "${uptime%.*}${uptime#*.}" -le "$ticket" ] || refuse ticket

for tool in tee cat sleep; do
    command -v $tool >/dev/null || refuse "$tool"
done
while [ "$count" -gt 0 ]; do
    [ -f "$own.in.$pieces.$((count + 9))" ] || refuse boot
    count=$((count - 1))
done
[ $# = 0 ] || check_attachable "$@"
# find_record recognizes the launcher by this mark.
set_mark $((mark + 1))

# The lock. Only one shell can create the file; this starts no process.
set -C
if ! { command exec 9>"$own"; } 2>/dev/null; then
    [ -e "$own" ] || [ -L "$own" ] && echo taken || refuse "$directory"
    exit
fi
set +C
# In a full file system the file is created but nothing can be written. The
# line written here reserves a block with room for all later lines.
read -r token </proc/sys/kernel/random/uuid
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ since _ </proc/$$/stat
if ! { command exec 3>>/proc/self/fd/9 &&
        echo "launcher $id $$ $since $end $token" >&3 &&
        : >"$own.stdout" >"$own.stderr"; } 2>/dev/null; then
    rm -f "$own" "$own".*
    refuse "$directory"
fi
exec 9>&-

# Signals that people send to processes by name.
signals='1 2 3 6 10 12 13 14 15 16 24 25 26 27 29 30 31'
trap : $signals
[ ! -d "$group" ] || { echo $$ >"$group/cgroup.procs"; } 2>/dev/null

# Makes a pipe whose ends are the descriptors $1 and $2. Most shells implement
# a here-document as a pipe, which saves a process; the others need the name
# $3.
#
# A background shell that goes on as a shell redirects with exec: around a
# function some shells keep the earlier descriptors open.
pipe() {
    eval "exec $1<<end
line
end"
    if [ -p "/proc/self/fd/$1" ]; then
        eval "read -r _ <&$1; exec $2>/proc/self/fd/$1"
        return
    fi
    rm -f "$3"
    mkfifo "$3"
    eval "exec $2<>\"\$3\" $1<\"\$3\" $2>\"\$3\""
}

# Keeps a stream in the file $1, and passes everything on if $2 is the name of
# an attached stream. Beyond the size limit tee goes on reading and
# stops writing to the file. The count of written bytes in /proc/PID/io must
# include nothing else, so stderr is open for reading only and error messages
# are not counted. While descriptor 9 is open the keeper is not done.
keep_head() {
    begin_keeping "$@"
    ulimit -f $((keep / 512))
    exec tee "${onward:-/dev/null}" <&4 >&6 2</dev/null 4<&-
}
keep_tail() {
    begin_keeping "$@"
    pipe 5 7 "$1.pipe"
    tail -c "$keep" <&5 >&6 2>/dev/null 3>&- 4<&- 5<&- 7>&- &
    exec tee $onward <&4 >&7 2</dev/null 4<&- 5<&- 7>&-
}
begin_keeping() {
    trap '' $signals
    exec 3>&- 5>&- 7>&- 8<&- </dev/null
    { command exec 6>>"$1"; } 2>/dev/null || { echo failed >&9; exit; }
    echo ready >&9
    onward=
    [ -n "$2" ] || return 0
    pipe 5 3 "$1.pipe"
    { exec <&5 3>&- 4<&- 5<&- 6>&-; keep_segments "$2"; } &
    exec 5<&-
    onward=/proc/self/fd/3
}

# Sets bytes to the number of bytes that the keeper $1 has written, without its
# "ready", and without a here-document for each pipe. A keeper of the tail that
# passes an attached stream on, named $2, writes everything twice.
count_bytes() {
    bytes=- others=6 times=1
    [ "$end" = head ] || others=11
    if [ -n "$2" ]; then
        others=$((others + 5))
        [ "$end" = head ] || times=2
    fi
    while read -r name value; do
        [ "$name" = wchar: ] || continue
        bytes=$(((value - others) / times))
        break
    done <"/proc/$1/io"
} 2>/dev/null

# Waits until both keepers are done, or until unhold.sh writes a line because
# children of the command still hold its streams.
await_keepers() {
    read -r _ <&8 || return
    if [ -n "$holder" ]; then
        tell_holder end
        read -r _ <&8 || return
    fi
    [ "$end$attach" != head ] || return
    kill -KILL "$out_keeper" "$err_keeper"
    while read -r _ <&8; do :; done
}

record_end() {
    count_bytes "$out_keeper" "$out_name"
    out=$bytes
    count_bytes "$err_keeper" "$err_name"
    echo "ended $1 $out $bytes" >&3
    record=/proc/self/fd/3
    # The tenant may have emptied the record.
    set -- "$pid" "$start"
    read_record
    pid=$1 start=$2
}

# Stops this shell. Another process may resume it at once; the shell then
# learns the end itself, see below.
stop_parent() {
    tries=0
    while [ $((tries += 1)) -le 100 ]; do
        kill -STOP $$
        look $$ && [ "$state" != T ] || break
    done
}

witness() {
    trap '' $signals
    exec 9>&- </dev/null
    ready=
    while [ "$ready" != xx ] || [ -z "$pid" ]; do
        read -r word first second third <&8 || exit
        case $word in
            ready) ready=x$ready ;;
            failed) exit ;;
            command) pid=$first start=$second self=$third ;;
        esac
    done
    # Descriptor 9 becomes the pipe that the command's parent reads.
    command exec 9>"/proc/$pid/fd/3" 5<"/proc/$out_keeper/fd/6" \
        7<"/proc/$err_keeper/fd/6" || exit
    echo "helpers $out_keeper $err_keeper $self
command $pid $start" >&3 || exit
    # bash reaps every child that ends, whatever it is doing.
    [ -z "$BASH_VERSION" ] || stop_parent
    echo go >&6
    exec 6>&- 4>&2 2>/dev/null
    await_keepers
    # The command has closed its streams, so it is probably exiting (flag 4).
    looks=0
    while look "$pid" && [ "$born" = "$start" ] && [ "$state" != Z ]; do
        [ $((flags & 4)) = 4 ] || [ $((looks += 1)) -lt 100 ] ||
            sleep 1 9>&-
    done
    # If bash was resumed, and lives, it has reaped the command.
    if [ "$state" != Z ] || [ "$born" != "$start" ]; then
        status=-
        is_helper $$ && kill -CONT $$ && exit
    fi
    record_end "$status"
    [ -z "$attach" ] || end_attached
    echo ended >&9
    exec 9>&-
    kill -CONT $$
    tell_end
    [ ! -s /proc/self/fd/7 ] || cat <&7 >&4
    [ ! -s /proc/self/fd/5 ] || exec cat <&5
}

# Sets name, uid, gid, home and login (shell) of the user, by name or number.
find_user() {
    read_users </etc/passwd && return
    found=$(getent passwd "$user" 2>/dev/null)
    read_users <<end && return
$found
end
    echo "There is no user $user" >&2
    return 1
}
read_users() {
    while IFS=: read -r name _ uid gid _ home login; do
        case $user in "$name" | "$uid") return ;; esac
    done
    return 1
}

if [ -n "$attach" ]; then
    begin_attached || { rm -f "$own" "$own".*; refuse "$directory"; }
fi
if [ "$pieces" != - ]; then
    pipe 4 5 "$own.pipe"
    {
        trap '' $signals
        cat "$own.in.$pieces".* && rm -f "$own.in.$pieces".*
    } </dev/null >&5 2>/dev/null 4<&- 5>&- &
    exec <&4 4<&- 5>&-
fi
pipe 8 9 "$own.pipe"
pipe 4 5 "$own.pipe"
if [ "$attach" = terminal ] && ! make_terminal; then
    end_attached
    rm -f "$own" "$own".*
    refuse script/python3
fi
{ exec >/dev/null 2>&1; "keep_$end" "$own.stdout" "$out_name"; } &
out_keeper=$!
exec 4<&-
pipe 4 7 "$own.pipe"
{ exec >/dev/null 2>&1; "keep_$end" "$own.stderr" "$err_name"; } &
err_keeper=$!
exec 4<&-
pipe 4 6 "$own.pipe"
pid=
witness &
witness=$!
exec 4<&- 5>&- 6>&- 9>&- 7>&2 2>/dev/null

# The command. Not a background job: those ignore SIGINT, and cannot undo that.
held=$(
    read -r pid _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ \
        </proc/self/stat
    { command exec 4<"/proc/$witness/fd/4" 5>"/proc/$witness/fd/5" \
        6>"/proc/$witness/fd/7" 9>"/proc/$witness/fd/8" 3>&1; } || exit
    echo "command $pid $start $witness" >&9
    read -r _ <&4 || { echo "$token" >&6; exit 126; }
    exec >&5 2>&6 3>&- 4<&- 5>&- 6>&- 7>&- 8<&- 9>&-
    # The token proves that nothing was executed: nobody else knows it.
    trap 'echo "$token" >&2' EXIT
    [ -z "$BASH_VERSION" ] || shopt -s execfail
    # The order moves to descriptor 4.
    case $attach in
        pipes) exec 4<&0 && take_input ;;
        terminal) command exec 4<&0 <>"$tty" >&0 && tell_holder opened ;;
    esac || { echo "Its stdin was lost" >&2; exit 126; }
    set_mark "$mark"
    export GUEST_AGENT_TOKEN="$token" GUEST_AGENT_SCRIPT="$order"
    set -- "$sh" -c 'eval "$GUEST_AGENT_SCRIPT"' guest-agent
    if [ -n "$user" ]; then
        find_user || exit 126
        export HOME="$home" SHELL="$login" USER="$name" LOGNAME="$name"
        # Some programs open /dev/stdout, which needs the permission.
        chown "$uid" /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2
        # The setpriv of busybox lacks these options; its su does not fork.
        if setpriv --reuid "$uid" --regid "$gid" --init-groups "$sh" -c : \
            2>/dev/null
        then
            set -- setpriv --reuid "$uid" --regid "$gid" --init-groups "$@"
        else
            su -p -s "$sh" "$name" -c : || exit 126
            shift
            set -- "${session_option:-$1}" "$2" "$3"
            set -- su -p -s "$sh" "$name" "$@"
        fi
    fi
    # A separate session, so that kill 0 does not signal the agent.
    for setsid in /usr/bin/setsid /bin/setsid; do
        [ -x $setsid ] && set -- $setsid $setsid_option "$@" && break
    done
    exec "$@"
    exit 126
)
code=$?

# Nothing to do if the witness has recorded the end.
[ "$held" != ended ] || exit
record=/proc/self/fd/3
read_record
[ -z "$ended" ] || exit
if [ "$pid" = - ] && [ "$shell" != - ]; then
    [ -z "$attach" ] || end_attached
    rm -f "$own" "$own".*
    refuse "$directory"
fi
# The witness was killed before. A shell reports codes over 128 for signals
# too, so only smaller ones are certain.
await_keepers
status=-
[ $code -gt 128 ] || status=$((code << 8))
record_end "$status"
[ -z "$attach" ] || end_attached
tell_end
show stderr 7 "$err_keeper" cat >&7
show stdout 5 "$out_keeper" cat
