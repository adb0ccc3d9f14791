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
# Makes the witness of a command stop waiting for children of the command that
# still hold its stdout or stderr.
#
# Arguments: directory, id.

name_command "$1" "$2"
find_record || exit
read_record
for process in "$witness" "$shell"; do
    # Opened for reading too, as that never blocks.
    [ -p "/proc/$process/fd/8" ] && is_helper "$process" &&
        echo 1<>"/proc/$process/fd/8" && exit
done
