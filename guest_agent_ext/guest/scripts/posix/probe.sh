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
# Prints the guest's boot, the uptime (in centiseconds), and the ids of
# commands that have files. Starts no process, except for the first time after
# a boot.
#
# Arguments: directory, control group.
#
# The name of a boot is the kernel's, with the last part replaced by the name
# of the directory. So a launcher that would miss a lock, because the directory
# was replaced, finds another boot.

directory=$1 group=$2
read -r boot </proc/sys/kernel/random/boot_id || exit
read -r uptime _ </proc/uptime || exit
[ -d "$directory" ] || mkdir -p "$directory" 2>/dev/null
# Sets name to the name of the directory: 12 hexadecimal digits.
read_name() {
    name=
    { read -r name <"$directory/name.id"; } 2>/dev/null
    case $name in *[!0-9a-f]* | '') return 1 ;; esac
}
if ! read_name; then
    # The file was written without room in the file system, or was changed.
    [ ! -e "$directory/name.id" ] || rm -f "$directory/name.id"
    read -r name </proc/sys/kernel/random/uuid
    (set -C; echo "${name##*-}" >"$directory/name.id") 2>/dev/null
    read_name || { echo unusable; exit; }
fi
# In a control group of their own, commands survive a stop of the agent's
# service.
[ -d "$group" ] || [ ! -w "${group%/*}/cgroup.procs" ] || mkdir "$group"
ids=
for file in "$directory"/*; do
    file=${file##*/}
    case $file in
        *.in.*) ids="$ids ${file%%.*}" ;;
        *.* | '*') ;;
        *) ids="$ids $file" ;;
    esac
done
echo "guest ${boot%-*}-$name ${uptime%.*}${uptime#*.}$ids"
