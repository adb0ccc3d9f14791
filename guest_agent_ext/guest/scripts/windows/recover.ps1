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
# Prints the state of a command.
#
# Arguments: id, and "fence" to take the lock if it is free, so that a launch
# that arrives later does not run the command. Any other word takes none.

$own = Join-Path $directory $order.args[0]

function Send-RecordedEnd {
    if (-not [IO.File]::Exists("$own.result")) { return }
    [Console]::Out.Write([IO.File]::ReadAllText("$own.result"))
    exit
}

# Tells whether the maker of the lock is still writing it: the file is open
# then.
function Test-Maker {
    try { [IO.File]::Open($own, 'Open', 'Read', 'None').Dispose() }
    catch { return $true }
    $false
}

if ($order.args[1] -eq 'fence') {
    [void][IO.Directory]::CreateDirectory($directory)
    if (New-Lock $own 'fence') { Send-Answer @{ says = 'fenced' } }
}
if (-not [IO.File]::Exists($own)) { Send-Answer @{ says = 'none' } }
$maker = Get-Words $own
if ($maker[0] -eq 'fence') { Send-Answer @{ says = 'fenced' } }
Send-RecordedEnd
if ($maker.Count -lt 3) {
    if (Test-Maker) {
        Send-Answer @{ says = 'running'; uptime = Get-Uptime }
    }
    # The maker may have finished since.
    $maker = Get-Words $own
}
if ($maker.Count -lt 3 -or -not (Test-Process $maker[0] $maker[1])) {
    # The command may have ended since the first check.
    Send-RecordedEnd
    Send-Answer @{ says = 'died' }
}
$answer = @{ says = 'running'; uptime = Get-Uptime; start = [long]$maker[2] }
$command = Get-Words "$own.pid"
if ($command.Count -ge 3) {
    $answer.pid = [int]$command[0]
    $answer.start = [long]$command[2]
    $answer.has_exited = -not (Test-Process $command[0] $command[1])
}
Send-Answer $answer
