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
# Arguments: id, and "fence" to take the lock if nobody has, so that a launch
# that comes later will not run it; anything else only looks.

$own = Join-Path $directory $order.args[0]

function Read-Words($path) {
    # Its writer may have it open.
    $file = [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite, Delete')
    $reader = New-Object IO.StreamReader $file
    try { , $reader.ReadToEnd().Split(' ') } finally { $reader.Dispose() }
}

function Send-RecordedEnd {
    if (-not [IO.File]::Exists("$own.result")) { return }
    [Console]::Out.Write([IO.File]::ReadAllText("$own.result"))
    exit
}

if ($order.args[1] -eq 'fence') {
    Assert-Directory
    if (New-Lock $own 'fence') { Send-Answer @{ says = 'fenced' } }
}
if (-not [IO.File]::Exists($own)) { Send-Answer @{ says = 'none' } }
$maker = Read-Words $own
if ($maker[0] -eq 'fence') { Send-Answer @{ says = 'fenced' } }
Send-RecordedEnd

# An empty lock was made this moment, and its maker has yet to sign it.
if ($maker[0] -and -not (Test-Process $maker[0] $maker[1])) {
    # It may have ended since the first look.
    Send-RecordedEnd
    Send-Answer @{ says = 'died' }
}
$answer = @{ says = 'running'; uptime = Get-Uptime }
if ([IO.File]::Exists("$own.pid")) {
    $command = Read-Words "$own.pid"
    $answer.pid = [int]$command[0]
    $answer.start = [long]$command[2]
    $answer.has_exited = -not (Test-Process $command[0] $command[1])
}
Send-Answer $answer
