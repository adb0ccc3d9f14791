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
# Tells what became of a command.
#
# Arguments: directory, id, and "fence" to take the lock if nobody has, so that
# a launch that comes later will not run it; anything else only looks.
#
# Prints a line for launcher.py; after "ended" what launch.sh prints.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 077
own=$1/$2

if [ "$3" = fence ]; then
    [ -d "$1" ] || mkdir -p "$1"
    # A link to nowhere can also be made where nothing can be written.
    ln -s fence "$own" 2>/dev/null
fi
[ -L "$own" ] && { echo fenced; exit; }
[ -e "$own" ] || { echo none; exit; }
read -r shell <"$own"

tell_end() {
    [ -s "$own.result" ] || return
    read -r result <"$own.result"
    echo "ended $result"
    [ -s "$own.stderr" ] && cat "$own.stderr" >&2
    [ -s "$own.stdout" ] && exec cat "$own.stdout"
    exit
}

tell_end

# The pid of a launcher may be another's by now: its arguments name the id.
# An empty lock was made this moment, and its maker has yet to sign it.
alive=
[ -n "$shell" ] || alive=yes
while read -r line || [ -n "$line" ]; do
    case $line in *"$2"*) alive=yes ;; esac
done 2>/dev/null <"/proc/$shell/cmdline"
read -r uptime _ </proc/uptime
uptime=${uptime%.*}${uptime#*.}
pid=- start=-
[ -s "$own.pid" ] && read -r pid start <"$own.pid"
if [ -z "$alive" ]; then
    # It may have ended since the first look.
    tell_end
    echo died
    exit
fi
state=-
{ read -r line <"/proc/$pid/stat"; } 2>/dev/null && {
    state=${line##*) }
    state=${state%% *}
}
echo "running $pid $start $uptime $state"
