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
# Runs one command, at most once, and keeps its end until it is released.
#
# This process stays while the command runs: it bounds and counts what the
# command writes, waits for its end and records it. If the agent is gone by
# then, nothing is lost.
#
# Files of a command: ID is the lock, ID.pid the command's pid, creation time
# and start (guest uptime), ID.unhold has children that still hold its streams
# left behind, ID.result is its end.

$own = Join-Path $directory $order.id
$argv = @($order.argv | ForEach-Object { Get-Text $_ })

# An agent that was held back may come late, or after a reboot.
$key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($bootKey)
if (-not $key -or $key.GetValue('id') -ne $order.boot_id) {
    Send-Answer @{ says = 'refused'; reason = 'boot' }
}
if ((Get-Uptime) -gt $order.ticket) {
    Send-Answer @{ says = 'refused'; reason = 'ticket' }
}
Assert-Directory
$self = [Diagnostics.Process]::GetCurrentProcess()
if (-not (New-Lock $own "$PID $(Get-Born $self)")) {
    if ([IO.File]::Exists($own)) { Send-Answer @{ says = 'taken' } }
    Send-Answer @{ says = 'refused'; reason = $directory }
}

function Send-End($end) {
    # Nobody may read half of it.
    [IO.File]::WriteAllText("$own.part", (ConvertTo-Json $end -Compress))
    [IO.File]::Move("$own.part", "$own.result")
    Send-Answer $end
}

function Send-Failure($why) {
    $bytes = [Text.Encoding]::UTF8.GetBytes($why)
    Send-End @{
        says = 'failed'; error = [Convert]::ToBase64String($bytes)
        uptime = Get-Uptime }
}

# There is no argument list in this .NET, only a line that programs split by
# the rules of CommandLineToArgvW: backslashes count only before a quote.
function Join-Arguments($words) {
    @($words | ForEach-Object {
        if ($_ -match '\A[^\s"]+\z') { return $_ }
        $word = $_ -replace '(\\*)"', '$1$1\"'
        $word = $word -replace '(\\+)\z', '$1$1'
        "`"$word`""
    }) -join ' '
}

function New-Keeper($stream) {
    $keeper = @{
        stream = $stream; buffer = New-Object byte[] 65536; read = $null
        kept = New-Object IO.MemoryStream; written = [long]0 }
    Read-More $keeper
    $keeper
}

function Read-More($keeper) {
    $keeper.read = $keeper.stream.ReadAsync($keeper.buffer, 0, 65536)
}

# Takes what was read. At the end of the stream nothing is read any more.
function Save-Chunk($keeper) {
    $count = 0
    if ($keeper.read.Status -eq 'RanToCompletion') {
        $count = $keeper.read.Result
    }
    $keeper.read = $null
    if (-not $count) { return }
    $keeper.written += $count
    $kept = $keeper.kept
    if ($order.keep_end -eq 'head') {
        $count = [Math]::Min($count, $order.keep - $kept.Length)
    }
    $kept.Write($keeper.buffer, 0, $count)
    if ($kept.Length -gt 2 * $order.keep) {
        $bytes = $kept.ToArray()
        $kept.SetLength(0)
        $kept.Write($bytes, $bytes.Length - $order.keep, $order.keep)
    }
    Read-More $keeper
}

function Get-Kept($keeper) {
    $bytes = $keeper.kept.ToArray()
    $count = [Math]::Min($bytes.Length, $order.keep)
    [Convert]::ToBase64String($bytes, $bytes.Length - $count, $count)
}

$info = New-Object Diagnostics.ProcessStartInfo
$info.FileName = $argv[0]
$info.Arguments = Join-Arguments @($argv | Select-Object -Skip 1)
$info.WorkingDirectory = "$env:SystemDrive\"
$info.UseShellExecute = $false
$info.CreateNoWindow = $true
$info.RedirectStandardInput = $true
$info.RedirectStandardOutput = $true
$info.RedirectStandardError = $true
foreach ($variable in $order.env) {
    $name = Get-Text $variable[0]
    $info.EnvironmentVariables[$name] = Get-Text $variable[1]
}
if ($order.cwd) { $info.WorkingDirectory = Get-Text $order.cwd }
if (-not [IO.Directory]::Exists($info.WorkingDirectory)) {
    Send-Failure "there is no directory $($info.WorkingDirectory)"
}
try { $process = [Diagnostics.Process]::Start($info) }
catch { Send-Failure ($_.Exception.GetBaseException().Message) }
$start = Get-Uptime
[IO.File]::WriteAllText(
    "$own.pid", "$($process.Id) $(Get-Born $process) $start")

$out = New-Keeper $process.StandardOutput.BaseStream
$err = New-Keeper $process.StandardError.BaseStream
$bytes = [Convert]::FromBase64String($order.stdin)
$fed = $process.StandardInput.BaseStream.WriteAsync($bytes, 0, $bytes.Length)
while ($reading = @($out, $err | Where-Object { $_.read })) {
    $tasks = @($reading | ForEach-Object { $_.read })
    if ($fed) { $tasks += $fed }
    [void][Threading.Tasks.Task]::WaitAny($tasks, 200)
    if ($fed -and $fed.IsCompleted) {
        # A command need not read what it is given.
        try { $process.StandardInput.Close() } catch { }
        $fed = $null
    }
    foreach ($keeper in $reading) {
        if ($keeper.read.IsCompleted) { Save-Chunk $keeper }
    }
    if ($process.HasExited -and [IO.File]::Exists("$own.unhold")) { break }
}
$process.WaitForExit()
$ended = @{
    says = 'ended'; pid = $process.Id; start = $start
    exitcode = $process.ExitCode; out = Get-Kept $out; err = Get-Kept $err
    out_bytes = $out.written; err_bytes = $err.written }
if ([IO.File]::Exists("$own.killed")) {
    $ended.killed = [IO.File]::ReadAllText("$own.killed")
}
Send-End $ended
