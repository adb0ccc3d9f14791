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
# Kills a command and all its descendants. Windows has no SIGTERM for programs
# without a window: TERM and KILL are the same here.
#
# Arguments: id, TERM or KILL, or 0 to kill nothing; the state that the command
# ends in if it is killed. Prints the number of live processes.
#
# No other process gets the PID of the command while the command lives, or the
# launcher, which holds a handle; so children are found even after the
# command's own process has ended. A process is not found if its parent has
# ended and is not the command. With LOST the end needs no record, and the
# launcher is killed too.

$signal, $status = $order.args[1..2]
$own = Join-Path $directory $order.args[0]
$alive = 0
$isWmiHung = $false

function Send-Count {
    [Console]::Out.Write($alive)
    [Console]::Out.Flush()
    # A query that waits for a hung WMI would keep this process alive.
    if ($isWmiHung) { $self.Kill() }
    exit
}

# Returns the process that the words of a lock or pid file name; nothing if
# they name none.
function Find-Process($words) {
    if ($words.Count -ge 3 -and $words[0] -match '\A[1-9][0-9]*\z' -and
        $words[1] -match '\A[0-9]+\z') {
        @{ id = [int]$words[0]; born = [long]$words[1]
           lives = Test-Process $words[0] $words[1] }
    }
}

# Returns the processes and their parents from WMI; none if WMI does not
# answer.
function Get-Pairs {
    $query = [PowerShell]::Create().AddScript(
        'Get-CimInstance Win32_Process -OperationTimeoutSec 5 ' +
        '-Property ProcessId, ParentProcessId')
    $pending = $query.BeginInvoke()
    if ($pending.AsyncWaitHandle.WaitOne(8000)) {
        try { return $query.EndInvoke($pending) } catch { }
    }
    $script:isWmiHung = $true
}

function Stop-One($id) {
    $script:alive += 1
    if ($signal -eq '0') { return }
    # A full disk must not prevent the kill.
    try { [IO.File]::WriteAllText("$own.killed", $status) } catch { }
    Stop-Pid $id
}

if ([IO.File]::Exists("$own.result")) { Send-Count }
$launcher = Find-Process (Get-Words $own)
$command = Find-Process (Get-Words "$own.pid")
# If neither lives, the PID may belong to another process.
if (-not ($launcher.lives -or $command.lives)) { Send-Count }
if ($command.lives) { Stop-One $command.id }
# If the PID could not be written, the launcher's children are the command.
$root = if ($command) { $command } else { $launcher }
$tree = @{ $root.id = $true; $self.Id = $true }
for ($round = 0; $round -lt 5 -and -not $isWmiHung; $round++) {
    $before = $tree.Count
    foreach ($pair in Get-Pairs) {
        $id = [int]$pair.ProcessId
        $parent = [int]$pair.ParentProcessId
        if ($tree[$id] -or -not $tree[$parent] -or $parent -eq $self.Id) {
            continue
        }
        # The parent may have been another process with the same PID.
        try {
            $child = [Diagnostics.Process]::GetProcessById($id)
            if ($child.HasExited -or (Get-Born $child) -lt $root.born) {
                continue
            }
        } catch { continue }
        $tree[$id] = $true
        Stop-One $id
    }
    if ($tree.Count -eq $before) { break }
}
if ($status -eq 'LOST' -and $signal -ne '0' -and $launcher.lives) {
    Stop-Pid $launcher.id
}
Send-Count
