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
# Tells the guest's boot and uptime (in centiseconds), and which commands have
# left files. Starts no process.
#
# Argument: directory.

read -r boot </proc/sys/kernel/random/boot_id || exit
read -r uptime _ </proc/uptime || exit
ids=
for file in "$1"/*; do
    file=${file##*/}
    case $file in *.* | '*') ;; *) ids="$ids $file" ;; esac
done
echo "guest $boot ${uptime%.*}${uptime#*.}$ids"
