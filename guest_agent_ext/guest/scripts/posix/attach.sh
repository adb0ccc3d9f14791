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
# What launch.sh does more for a command whose streams are attached; it stands
# before that. attached.py says what files there are, and has the other end.
#
# Arguments, behind those of launch.sh: pipes or terminal, bytes of a segment
# of output and of the ring of input, and for a terminal its columns, its rows,
# and terminal.py.
#
# Processes beside those of launch.sh: a pump for stdin, a segmenter behind the
# keeper of each stream with what copies a segment, and the holder of a
# terminal. Each waits for a pipe, and none polls.
#
# Nothing of the host's is run or expanded here but numbers, and bytes as
# printf takes them. What was said twice is left, as is what was torn.

# Finds out what the guest has, or refuses. What its tools are like is asked
# once in the life of the directory.
check_attachable() {
    attach=$1 segment=$2 ring=$3 columns=$4 rows=$5 program=$6 out_name=out
    [ "$attach" = terminal ] && setsid_option=-c || err_name=err
    for tool in mkfifo dd head tail rm; do
        command -v $tool >/dev/null || refuse $tool
    done
    { read -r copier feeder _ <"$directory/attach.tools"; } 2>/dev/null
    case $copier-$feeder in
        bytes-dd | records-dd | records-tail | head-dd | head-tail) ;;
        *)
            find_tools
            { echo "$copier $feeder" >"$directory/attach.tools"; } 2>/dev/null
            ;;
    esac
    case $copier in
        bytes) copy="dd bs=16384 iflag=count_bytes count=$segment" ;;
        head) copy="stdbuf -o0 head -c $segment" ;;
        *) copy="dd bs=16384 count=$((segment / 16384))" ;;
    esac
    [ "$attach" = terminal ] || return 0
    for tool in stty tty setsid; do
        command -v $tool >/dev/null || refuse $tool
    done
    # One that is not busybox's takes the terminal from what it runs.
    for su in /usr/bin/su /bin/su; do
        [ -x $su ] && [ -n "$user" ] || continue
        case $($su --help 2>&1) in
            *--session-command*) session_option=--session-command ;;
        esac
        break
    done
    for holder in python3 script; do
        command -v $holder >/dev/null && return
    done
    refuse script/python3
}

# Sets copier, which copies a segment and holds nothing back, and feeder, which
# finds a place in a file. Only busybox's dd counts the bytes of a pipe, others
# count how often they read, and GNU's head holds back what it may. Where
# nothing better is there a segment ends after so many reads.
find_tools() {
    copier=records feeder=tail
    [ "$(echo abc | dd bs=16 iflag=skip_bytes,count_bytes skip=1 count=1 \
        2>/dev/null)" != b ] || feeder=dd
    case $(dd --help 2>&1) in
        *BusyBox*count_bytes*) copier=bytes && return ;;
    esac
    case $(head --version 2>/dev/null) in
        *GNU*) [ "$(echo abc | stdbuf -o0 head -c 1 2>/dev/null)" != a ] ||
            copier=head ;;
    esac
}

# Makes the files, and starts the pump.
begin_attached() {
    { mkfifo "$own.bell" "$own.taken" "$own.hold" "$own.out.credit" \
        "$own.err.credit" && : >"$own.ring" >"$own.out.0" >"$own.err.0" \
        >"$own.news"; } 2>/dev/null || return
    pipe 4 5 "$own.pipe"
    { exec </dev/null >/dev/null 2>&1 6>&5 5>&-; pump; } &
    pump=$!
    exec 4<&- 5>&-
}

# Makes stdin the pipe from the pump, and tells it. A pipe with a name would
# have who opens /dev/stdin wait for another writer.
take_input() {
    command exec <"/proc/$pump/fd/4" && echo >"$own.taken"
}

# A segment is one file, which only grows. It begins when the one before the
# last was taken, and that is removed then. /proc tells its size.
keep_segments() {
    name=$1 number=0 base=0 taken=0
    { command exec 8<>"$own.$name.credit" 3>>"$own.news"; } 2>/dev/null || exit
    while :; do
        while [ $((number - taken)) -ge 2 ]; do
            read -r word count stop <&8 || exit
            case $word-$stop in
                taken-.) [ "$count" -le "$taken" ] || taken=$count ;;
                drop-.) exit ;;
            esac
        done
        [ $number -lt 2 ] || rm -f "$own.$name.$((number - 2))"
        size=-
        if { command exec 6>"$own.$name.$number"; } 2>/dev/null; then
            [ $number = 0 ] || echo "$name $number $base" >&3
            $copy >&6 3>&- 6>&- 8>&- 9>&- && read_size
        fi
        if [ "$size" = - ]; then
            # Bytes are lost. Where there is no room left to say so, this
            # makes some.
            : >"$own.$name.$number"
            echo "$name-failed" >&3
            exit
        fi
        base=$((base + size)) number=$((number + 1))
        [ "$size" != 0 ] || break
        [ "$copier" = records ] || [ "$size" = "$segment" ] || break
    done
    echo "$name-end $base" >&3
}

# Sets size to where descriptor 6, which the copier had too, is in its file.
read_size() {
    while read -r word value; do
        [ "$word" != pos: ] || size=$value
    done </proc/self/fdinfo/6
}

# Feeds the command. A line that begins behind what it has had is too early.
# Until somebody else has the pipe, the pump keeps it. What is in a FIFO is lost
# when nobody has that open, so nothing is to come before the pump says so.
pump() {
    trap '' $signals
    { command exec 3>>"$own.news" 7<"$own.ring" 8<>"$own.bell" &&
        echo begin >&3 &&
        read -r _ <"$own.taken"; } 2>/dev/null || exit
    exec 4<&-
    at=0
    while read -r word start until text stop <&8; do
        [ "$stop" = . ] || continue
        if [ "$start" -gt "$at" ]; then
            echo "in-gap $at" >&3
            continue
        fi
        [ "$word" != end ] || break
        [ "$until" -gt "$at" ] || continue
        "pump_$word" || break
        at=$until
        echo "in $at" >&3
    done
    if [ "$word" = end ] && [ "$attach" = terminal ]; then
        printf '\004' >&6
        echo in-closed >&3
        # To close it would be taken as more than that.
        while read -r _ <&8; do :; done
    fi
    exec 6>&-
    echo "in-${failure:-closed}" >&3
}

# A character is itself, or five which name its byte.
pump_text() {
    while [ "$start" -lt "$at" ]; do
        case $text in
            \\*) text=${text#?????} ;;
            *) text=${text#?} ;;
        esac
        start=$((start + 1))
    done
    printf %b "$text" >&6
}

pump_ring() {
    place=$((at % ring)) count=$((until - at))
    if [ "$feeder" = dd ]; then
        error=$(exec dd bs=65536 iflag=skip_bytes,count_bytes skip=$place \
            count=$count </proc/self/fd/7 2>&1 >&6) && return
    else
        error=$(tail -c +$((place + 1)) </proc/self/fd/7 |
            head -c $count 2>&1 >&6) && return
    fi
    # That the command has closed its stdin is no failure.
    case $error in *[Bb]roken\ pipe*) ;; *) failure=failed ;; esac
    return 1
}

# Sets holder and tty. The terminal is held by a process of its own, so that
# the command is what it would be without one. Its descriptor 3 is where it is
# told that the command has the terminal, and is to end.
#
# script ends when what it runs does, Python's as well when nobody has the
# terminal any more. Only root can take the terminal from what script runs.
make_terminal() {
    pipe 6 7 "$own.pipe"
    {
        exec </dev/null >&5 2>/dev/null 4<&- 5>&- 6<&- 8<&- 9>&-
        hold_terminal
    } &
    exec 7>&-
    read -r holder tty <&6 || holder=
    exec 6<&-
    [ -n "$holder" ] && { echo "$tty" >"$own.tty"; } 2>/dev/null &&
        stty -F "$tty" rows "$rows" cols "$columns" 2>/dev/null
}
hold_terminal() {
    trap '' $signals
    exec 3<>"$own.hold"
    take_input || exit
    if [ "$holder" = python3 ]; then
        export GUEST_AGENT_SCRIPT="$program"
        exec python3 -E -s -S -c \
            'import os; exec(os.environ["GUEST_AGENT_SCRIPT"])'
    fi
    export SHELL="$sh" GUEST_AGENT_SCRIPT='stty sane
        echo "$$ $(tty)" >&7
        exec 7>&-
        while read -r word <&3 && [ "$word" != end ]; do :; done'
    exec script -qfc 'eval "$GUEST_AGENT_SCRIPT"' /dev/null
}

# Tells the holder of the terminal a word.
tell_holder() {
    [ -n "$holder" ] && is_helper "$holder" &&
        echo "$1" 1<>"/proc/$holder/fd/3"
} 2>/dev/null

end_attached() {
    ! is_helper "$pump" || kill -KILL "$pump"
    tell_holder end
    [ ! -f "$own.news" ] || echo end >>"$own.news"
} 2>/dev/null
