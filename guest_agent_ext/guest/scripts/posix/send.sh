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
# Sends a signal to the process group of a command.
#
# Arguments: directory, id, name of the signal. Prints "sent", or "none" where
# the command does not run.

name_command "$1" "$2"
exec 2>/dev/null
find_record || { echo none; exit; }
read_record
is_running || { echo none; exit; }
# Without setsid its group is the agent's.
[ "$pgrp" != "$pid" ] || pid=-$pid
kill "-$3" "$pid" && echo sent || echo none
