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
# Runs one command, at most once, and keeps its end until it is released.
#
# Arguments: directory, id, boot id, ticket (guest uptime in centiseconds),
# bytes to keep of each stream, which end to keep (head or tail), working
# directory, number of environment variables, then the command and its
# arguments. The variables are in the environment as GA_1=NAME=VALUE and so on;
# stdin is the command's.
#
# Prints one line, which launcher.py reads, and behind it what the command
# wrote to stdout; what it wrote to stderr goes to stderr.
#
# Processes beside the command: this shell, which is stopped while the command
# runs, so that the command stays a zombie when it has ended and its true wait
# status can be read; a keeper for each stream, which bounds and counts; and a
# witness, which waits for the end and records it.
#
# Files of a command: ID is the lock, ID.pid the command's pid and start time,
# ID.stdout and ID.stderr what is kept, ID.result its end, ID.room the room for
# that; ID.killed-STATE says that it was killed, and what it ends as by that.
# ID.1 and ID.2 are the pipes that it writes to, ID.end the one that tells
# when both are done.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 077
own=$1/$2 directory=$1 id=$2 boot=$3 ticket=$4 keep=$5 end=$6 cwd=$7 variables=$8
shift 8

# An agent that was held back may come late, or after a reboot.
read -r running_boot </proc/sys/kernel/random/boot_id
[ "$running_boot" = "$boot" ] || { echo refused boot; exit; }
read -r uptime _ </proc/uptime
[ "${uptime%.*}${uptime#*.}" -le "$ticket" ] || { echo refused ticket; exit; }

for tool in mkfifo tee tail cat; do
    command -v $tool >/dev/null || { echo refused "$tool"; exit; }
done
[ -d "$directory" ] || mkdir -p "$directory"

# The lock. Only one shell creates the file; no process is started for it.
set -C
if ! { command exec 9>"$own"; } 2>/dev/null; then
    [ -e "$own" ] || [ -L "$own" ] && echo taken || echo refused "$directory"
    exit
fi
set +C
# In a file system that is full it is made and nothing can be written to it.
# The room is for the end: it may be full by then.
if ! { echo $$ >&9 && echo >"$own.room" &&
        mkfifo "$own.1" "$own.2" "$own.1.tail" "$own.2.tail" "$own.end"
    } 2>/dev/null; then
    rm -f "$own" "$own".*
    echo refused "$directory"
    exit
fi
exec 9>&-

# A keeper of stream $1, in the file $2. Beyond the size limit tee goes on
# reading without writing to the file. Its count of written bytes
# (/proc/PID/io) must count nothing else: its stderr is open for reading only,
# so that complaints are not counted. Fd 9 says that it is not done yet, and
# is opened before the stream, without which the command does not start.
keep_head() {
    exec 9>"$own.end"
    trap '' XFSZ
    ulimit -f $((keep / 512))
    exec tee "$2" <"$own.$1" >/dev/null 2</dev/null
}
keep_tail() {
    exec 9>"$own.end"
    tail -c "$keep" <"$own.$1.tail" >"$2" 2>/dev/null &
    exec tee <"$own.$1" >"$own.$1.tail" 2</dev/null
}

# Sets bytes to what the process $1 has written.
count() {
    while read -r name value; do
        [ "$name" = wchar: ] && bytes=$value
    done <"/proc/$1/io"
}

witness() {
    # Ends when both keepers are done, or when somebody writes a line: then a
    # child of the command still has its streams.
    # Opened once: to open it again would wait for a writer that may be gone.
    exec 7<"$own.end"
    if read -r _ <&7 && [ "$end" = tail ]; then
        kill "$out_keeper" "$err_keeper"
        read -r _ <&7
    fi
    exec 7<&-
    read -r pid start <"$own.pid"
    # It has closed its streams, so mostly it is about to end (flag 4).
    while :; do
        line=
        while read -r more; do line="$line $more"; done <"/proc/$pid/stat"
        # From the third field on: state is 1, flags are 7, wait status is 50.
        set -- ${line##*) }
        [ "${1:-Z}" = Z ] && break
        [ $(($7 & 4)) = 4 ] || sleep 1
    done
    # Flag 64: it never executed anything. Nor did setsid, if it still is it.
    never=$((${7:-0} & 64))
    case $line in *'(setsid)'*) never=64 ;; esac
    count "$out_keeper"
    out=$bytes
    count "$err_keeper"
    err=$bytes
    killed=-
    for file in "$own".killed-*; do
        [ -e "$file" ] && killed=${file##*-}
    done
    : >"$own.room"
    echo "$pid $start ${50:--} $never $end $out $err $killed" >"$own.result"
    kill -CONT $$
}

"keep_$end" 1 "$own.stdout" </dev/null &
out_keeper=$!
"keep_$end" 2 "$own.stderr" </dev/null &
err_keeper=$!
witness </dev/null >/dev/null 2>&1 &

# The command, in the foreground: shells have background jobs ignore SIGINT.
# What this shell says when a signal ends the command goes nowhere.
exec 8>&2 2>/dev/null
(
    read -r pid _ _ shell _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ \
        </proc/self/stat
    kill -STOP "$shell"
    while read -r _ _ state _ <"/proc/$shell/stat"; [ "$state" != T ]; do
        :
    done
    exec >"$own.1" 2>"$own.2" 8>&-
    echo "$pid $start" >"$own.pid" || exit 126
    cd "$cwd" || exit 126
    # By this mark its whole tree is found.
    export GUEST_AGENT_COMMAND="$id"
    umask 022
    # A session of its own: kill 0 must not meet the agent.
    for setsid in /usr/bin/setsid /bin/setsid; do
        [ -x $setsid ] && set -- $setsid -- "$@" && break
    done
    while [ "$variables" -gt 0 ]; do
        eval "export \"\$GA_$variables\""
        unset "GA_$variables"
        variables=$((variables - 1))
    done
    exec "$@"
)

# Stopped until here. Nothing is lost if the agent is gone and this is killed
# by the first write.
read -r result <"$own.result" || { echo died; exit; }
echo "ended $result"
# For an empty stream no process is started.
[ -s "$own.stderr" ] && cat "$own.stderr" >&8
[ -s "$own.stdout" ] && exec cat "$own.stdout"
