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
# Ends a command and all that descends from it. Windows has no SIGTERM for
# programs without a window: TERM and KILL are the same here.
#
# Arguments: id, signal, the state that the command ends in by that. Prints how many processes were alive.
#
# The pid of the command is its own as long as its launcher is there, which has
# it open; so its children are found when it has ended itself. A process whose
# parent has ended, and is not the command, is not found.

$own = Join-Path $directory $order.args[0]
if (-not [IO.File]::Exists("$own.pid") -or
    [IO.File]::Exists("$own.result")) {
    [Console]::Out.Write(0)
    exit
}
$command, $born, $start = [IO.File]::ReadAllText("$own.pid").Split(' ')
$tree = @{ [int]$command = $true }
$alive = 0

function Save-Reason {
    [IO.File]::WriteAllText("$own.killed", $order.args[2])
}

if (Test-Process $command $born) {
    Save-Reason
    Stop-Process -Id $command -Force -ErrorAction SilentlyContinue
    $alive = 1
}
do {
    $before = $alive
    foreach ($process in Get-CimInstance Win32_Process) {
        $id = [int]$process.ProcessId
        if ($tree[$id] -or -not $tree[[int]$process.ParentProcessId]) {
            continue
        }
        # Its parent may have been another with the same pid.
        if ($process.CreationDate.ToFileTimeUtc() -lt [long]$born) { continue }
        $tree[$id] = $true
        $alive += 1
        Save-Reason
        Stop-Process -Id $id -Force -ErrorAction SilentlyContinue
    }
} while ($alive -ne $before)
[Console]::Out.Write($alive)
